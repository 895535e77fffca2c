"""A contrastive step: the scores of all queries against all documents, cross-entropy with the document of the same
number, and the gradients of all token vectors.

The gate: the scores of ours must be the specification's bits. Gradients have no specification of their own; ours must
be within 1e-5 of those that follow from the specification's winners, of the largest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.operations.token_arena import TokenArena
from bench.ours.contestants import Unavailable, module, version_of
from bench.racing import gate
from bench.racing.race import Entry, enter, refused
from bench.racing.row import Row
from bench.workloads.shapes import Heat
from bench.workloads.token_shapes import TokenWorkload
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim
from pyengine.types import F32, F64

TOLERANCE = 1e-5  # of gradients

Score = Callable[[Any, Any, Any], Any]  # (queries [Q, Lq, D], docs [N, Ld, D], mask bool [N, Ld]) -> scores [Q, N]


class Step(NamedTuple):
    """What a step leaves behind; the gradients by token, as the documents and queries lie in a `Ragged`."""

    scores: F32  # [Q, N]
    query_gradient: F32  # [Tq, D]
    doc_gradient: F32  # [Td, D]


@dataclass(frozen=True)
class Trainer:
    """``score`` makes the function that a model would call, differentiable by torch; ``backend`` is that of ours, where
    it is not the CPU's."""

    name: str
    score: Callable[[], Score]
    ours: bool = False
    package: str = "torch"
    backend: str = ""


def ours() -> Score:
    """pyengine.torch.maxsim, all pairs."""
    try:
        maxsim = module("pyengine.torch").maxsim
    except (Unavailable, AttributeError):
        raise Unavailable("this pyengine has no pyengine.torch.maxsim") from None
    return lambda queries, docs, mask: maxsim(queries, docs, docs_mask=mask)


def einsum() -> Score:
    """What people write."""
    torch = module("torch")

    def score(queries: Any, docs: Any, mask: Any) -> Any:
        products = torch.einsum("qid,njd->qnij", queries, docs)
        return products.masked_fill(~mask[None, :, None], -torch.inf).amax(dim=3).sum(dim=2)

    return score


def pylate() -> Score:
    """pylate.scores.colbert_scores, as its contrastive loss calls it."""
    score = module("pylate.scores", "pylate").colbert_scores
    return lambda queries, docs, mask: score(queries, docs, documents_mask=mask)


def kernels_reference() -> Score:
    """late_interaction_kernels.reference, which is what that library runs without a GPU."""
    score = module("late_interaction_kernels.reference", "late-interaction-kernels").maxsim_reference
    return lambda queries, docs, mask: score(queries, docs, d_mask=mask)


TRAINERS = (
    Trainer("pyengine-torch", ours, ours=True),
    Trainer("torch-einsum", einsum),
    Trainer("pylate", pylate, package="pylate"),
    Trainer("late-interaction-kernels", kernels_reference, package="late-interaction-kernels"),
)


def entries(heat: Heat, arena: TokenArena, trainers: Sequence[Trainer]) -> list[Entry]:
    (workload,) = heat.workloads
    assert isinstance(workload, TokenWorkload)
    return [_entry(heat, workload, arena, who) for who in trainers]


def _entry(heat: Heat, workload: TokenWorkload, arena: TokenArena, who: Trainer) -> Entry:
    n_bytes = arena.docs.values.nbytes
    operations = workload.operations + 4 * workload.n_docs * workload.n_queries * workload.query_tokens * workload.dim
    row = Row(
        heat.table,
        workload,
        who.name,
        arena.threads(workload),
        "ours" if who.ours else "peer",
        n_bytes=2 * n_bytes,  # the documents are read, and as many gradients written
        operations=operations,  # all products, and those of the winners in the gradients
        floor=arena.settings.ceilings.floor(2 * n_bytes, operations, "float32"),
        version=pyengine.__version__ if who.ours else version_of(who.package),
        exactness="the specification's bits forward" if who.ours else "float32",
    )
    try:
        step = _step(arena, workload, who.score())
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error)
    true = arena.keep(("step", workload), lambda: specified(arena.asked(workload), arena.docs))
    entry, verdict = enter(row, step, lambda found: judge(_read(arena, found), true), arena.settings)
    entry.row = replace(entry.row, verdict=verdict, note=verdict.reason if verdict else entry.row.note)
    return entry


def _step(arena: TokenArena, workload: TokenWorkload, score: Score) -> Callable[[], Any]:
    """The step as a model takes it: padded tensors that ask for gradients."""
    torch = module("torch")
    torch.set_num_threads(arena.threads(workload))
    queries = torch.from_numpy(np.stack(list(arena.asked(workload)))).to(arena.device).requires_grad_()
    rows, lengths = [torch.from_numpy(row) for row in arena.docs], torch.from_numpy(arena.docs.lengths)
    docs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(arena.device).requires_grad_()
    mask = (torch.arange(docs.shape[1])[None] < lengths[:, None]).to(arena.device)
    positives = torch.arange(len(queries), device=arena.device)

    def step() -> Any:
        queries.grad = docs.grad = None
        scores = score(queries, docs, mask)
        torch.nn.functional.cross_entropy(scores, positives).backward()
        return scores, queries.grad, docs.grad

    return step


def _read(arena: TokenArena, found: Any) -> Step:
    scores, query_gradient, doc_gradient = (tensor.detach().cpu().numpy() for tensor in found)
    real = [gradient[:length] for gradient, length in zip(doc_gradient, arena.docs.lengths)]
    return Step(scores, query_gradient.reshape(-1, query_gradient.shape[2]), np.concatenate(real))


def specified(queries: Ragged, docs: Ragged) -> Step:
    """The step by the specification: its scores, and in float64 the gradients through its winners."""
    scores = reference_maxsim.scores(queries, docs)
    share = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    share = share / share.sum(axis=1, keepdims=True) - np.eye(*scores.shape)
    share /= len(queries)  # the derivative of the loss by each score, [Q, N]
    by_query, by_doc = np.zeros(queries.values.shape), np.zeros(docs.values.shape)
    for q, query in enumerate(queries):
        products = reference_maxsim.similarities(query, docs.values)  # [Lq, Td]
        for d, (low, high) in enumerate(zip(docs.offsets[:-1], docs.offsets[1:])):
            won = low + reference_maxsim.winners(products[:, low:high])
            by_query[slice(*queries.offsets[q : q + 2])] += share[q, d] * docs.values[won].astype(np.float64)
            np.add.at(by_doc, won, share[q, d] * query.astype(np.float64))
    return Step(scores, by_query.astype(np.float32), by_doc.astype(np.float32))


def judge(found: Step, true: Step) -> gate.Verdict:
    """``recall`` is the share of the scores with the specification's bits."""
    same = found.scores.view(np.uint32) == true.scores.view(np.uint32)
    reason = "" if same.all() else f"{np.count_nonzero(~same)} of {same.size} scores are not the specification's bits"
    for name, gradient, expected in zip(Step._fields[1:], found[1:], true[1:]):
        error = _relative_error(gradient, expected)
        if not error <= TOLERANCE and not reason:
            reason = f"{name} is off by {error:.2g} of the largest of them"
    return gate.Verdict(not reason, float(same.mean()), reason)


def _relative_error(found: F32, expected: F32) -> float:
    error: F64 = np.abs(found.astype(np.float64) - expected)
    return float(error.max() / np.abs(expected).max())
