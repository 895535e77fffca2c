"""Proposing and refining MaxSim with Triton's kernels, on the device throughout: launches that neither wait for the
host nor, where searches resemble one another, allocate."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.token_terms import parts
from pyengine.backends.triton import triton_asked, triton_device, triton_tokens, triton_workspace
from pyengine.backends.triton.triton_answers import answer_room, id_places, on_host
from pyengine.backends.triton.triton_asked import Asked
from pyengine.backends.triton.triton_filters import limits
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.lists import first_rows
from pyengine.kernels import answers, filtering, maxsim_plan, maxsim_refine, maxsim_topk, selection
from pyengine.kernels.answers import Answer
from pyengine.kernels.filtering import Limits
from pyengine.kernels.maxsim_plan import ScanPlan, plan_scan
from pyengine.kernels.maxsim_queries import Coding, Laid
from pyengine.kernels.maxsim_refine import Maxima, Scoring
from pyengine.kernels.maxsim_topk import CodedTokens
from pyengine.kernels.selection import Pools
from pyengine.kernels.token_values import TokenSets
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.specification import reference
from pyengine.types import F32, I64, Attempt, Candidates

PAIRS = 1 << 20  # places of pools that are scored together: 16 MiB of numbers
ALIGN = 16  # queries: or parts are not aligned alike, and compiled again


def plan(problem: MaxSimProblem) -> ScanPlan:
    """How a problem is scanned."""
    docs, lengths = problem.docs, np.diff(problem.queries.offsets)
    form, chip = triton_tokens.form_of(docs), triton_device.chip()
    return plan_scan(lengths, len(docs.tokens), docs.dim, form, chip, problem.reduce == "symmetric")


class Listed(NamedTuple):
    """What is scanned, for pools of ``capacity`` places: all ``n_rows`` documents, or those that ``rows`` int64 names;
    what is seen first is spread over the corpus, for a first threshold."""

    n_rows: int
    rows: I64 | None
    capacity: int


def listed(problem: MaxSimProblem, width: int) -> Listed:
    """The documents to be read for a problem: a mask of all queries is a list of rows."""
    mask, n_rows, rows = problem.mask, len(problem.docs), None
    if mask is not None and len(mask) == 1:
        rows = np.flatnonzero(checks.unpack(mask, n_rows)[0])
        n_rows = len(rows)
    capacity = 2 * max(1, min(problem.k, n_rows), min(width, n_rows))
    return Listed(n_rows, rows if rows is None else spread(rows, -(-n_rows // capacity)), capacity)


def spread(rows: I64, stride: int) -> I64:
    """The same rows, one of so many of them first."""
    if stride <= 1:
        return rows
    return np.concatenate([rows[::stride], np.delete(rows, np.s_[::stride])])


@dataclass(frozen=True)
class Steps:
    """What the launches of a search read: the queries as they were ``asked``, and how they are coded; documents as they
    are scanned, in ``rows``, and as they are refined, unless they are not, with their numbers of tokens ``counts``
    int32 [N]; ``mask`` uint8 [Q, ceil(N / 8)], ``floor`` float32 [Q] what thresholds begin with, ``order`` int32 [N]
    the place of each row by its id, ``names`` int64 [N] the ids in that order."""

    asked: Asked
    coding: Coding
    plan: ScanPlan
    docs: CodedTokens
    rows: Tensor
    capacity: int
    exact: TokenSets | None
    counts: Tensor
    how: Scoring
    k: int
    least: int  # places that the scan looks for
    mask: Tensor | None = None
    floor: Tensor | None = None
    order: Tensor | None = None
    names: Tensor | None = None
    limits: Limits | None = None

    def scan(self, room: Workspace) -> tuple[Pools, Tensor]:
        """Pools of what can be among the best, and what makes rank scores of their bounds, float64 [Q, 2]."""
        own, form, tile = self.asked, self.plan.form, self.plan.tile
        shape = len(own.laid.lengths), self.capacity
        upper, lower = (room.room(name, shape, torch.float32) for name in ("upper", "lower"))
        counts, lost = (room.room(name, shape[:1], torch.int32) for name in ("counts", "lost"))
        threshold = room.room("threshold", shape[:1], torch.float32)
        found = Pools(room.room("rows", shape, torch.int32), upper, lower, counts, threshold, lost)
        width = maxsim_plan.padded(own.tokens.shape[1], form)
        queries, scaling = triton_asked.panels(
            own, width, triton_tokens.query_form(form), self.coding, found, room
        )  # fmt: skip
        if self.floor is not None:
            found.threshold.copy_(self.floor)
        k = min(self.least, len(self.rows))
        for first, count in parts(len(self.rows), self.capacity, k, len(queries.panels) - 1):
            maxsim_topk.scan(found, queries, self.docs, self.rows, self.mask, first, count, tile, self.coding.symmetric)
            selection.tighten(found, k)
        return found, scaling

    def answer(self, room: Workspace) -> Answer:
        """The whole search, but for what its certificate does not cover."""
        found, scaling = self.scan(room)
        scores = self._refined(found, room)
        counts = found.counts
        if self.limits is not None:
            counts = filtering.leave(scores, found.rows, counts, self.limits, self.order, False)
        keys = room.room("keys", (len(counts), self.k), torch.int64)
        selection.choose(scores, found.rows, counts, self.order, False, keys)
        into = answer_room(room, *keys.shape)
        answers.finish(keys, found, self.names, False, into, scaling)
        return into

    def _refined(self, found: Pools, room: Workspace) -> Tensor:
        """float32 [Q, C]: the scores of what pools hold. Every place is a pair to be scored, of nothing where it is
        empty: so the host need not know how many are filled."""
        assert self.exact is not None
        scores, capacity = room.room("scores", tuple(found.rows.shape), torch.float32), self.capacity
        step = max(1, min(len(scores), max(ALIGN, PAIRS // capacity // ALIGN * ALIGN)))
        doc_of = room.room("documents of pairs", (step, capacity), torch.int64)
        empty = room.room("empty places", (step, capacity), torch.bool)
        places, query_of = room.kept("numbers of pairs", lambda: _numbers(step, capacity, room.device))
        sets = self.asked.sets(self.exact.dims, self.coding.normalize, room)
        for first in range(0, len(scores), step):
            part = slice(first, min(first + step, len(scores)))
            count = part.stop - first
            torch.ge(places, found.counts[part, None], out=empty[:count])
            doc_of[:count].copy_(found.rows[part]).masked_fill_(empty[:count], -1)
            maxsim_refine.write_scores(
                _alone(scores[part]), sets._replace(offsets=sets.offsets[first : part.stop + 1]), self.exact,
                query_of[: count * capacity], doc_of[:count].view(-1), self.how,
                (self.asked.laid.lengths[part], self.counts), _finding(sets, room),
            )  # fmt: skip
        return scores


def _numbers(step: int, capacity: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """int32 [C]: those of the places in a pool; and int64 [step C]: of which pool each place is."""
    places = torch.arange(capacity, dtype=torch.int32, device=device)
    return places, torch.arange(step, device=device).repeat_interleave(capacity)


def _alone(scores: Tensor) -> Maxima:
    """Where scores are written, and no winners."""
    flat = scores.view(-1)
    return Maxima(flat, flat[:, None][:, :0], flat[:, None][:, :0])


def _finding(queries: TokenSets, room: Workspace) -> maxsim_refine.Find:
    """`maxsim_refine.maxima` in room that is kept: one for each side."""

    def find(
        choosers: TokenSets, chosen: TokenSets, chooser_of: Tensor, chosen_of: Tensor, normalize: bool, _: Tensor | None
    ) -> Tensor:
        side = "maxima of queries" if choosers.rows is queries.rows else "maxima of documents"
        found = room.roomy(side, (choosers.longest, len(chooser_of)), torch.float64)
        return maxsim_refine.maxima(choosers, chosen, chooser_of, chosen_of, normalize, found=found)

    return find


def room_for(problem: MaxSimProblem, k: int, which: Listed) -> AbstractContextManager[Workspace]:
    """Room for a search for the k best in pools of what is listed."""
    return triton_workspace.room_for(problem.docs, problem.n_queries, k, which.capacity)


def steps(problem: MaxSimProblem, which: Listed, k: int, room: Workspace, refined: bool = True) -> Steps:
    """What the launches read, to answer with k results, or only to scan where nothing is ``refined``: copied to the
    device where it comes with the search."""
    own, (made, laid) = triton_tokens.mirror(problem), _planned(problem, room)
    bias, doc_weights = room.sent("biases", problem.bias, problem.doc_weights)
    docs, units = triton_tokens.coded_tokens(problem, own, doc_weights)
    mask = problem.mask
    asked = triton_asked.asked(problem, laid, room)
    return Steps(
        asked=asked,
        coding=triton_asked.coding(problem, made.form, units),
        plan=made,
        docs=docs if bias is None else docs._replace(biases=bias),
        rows=_rows(problem, which) if which.rows is None else room.copied("listed", which.rows),
        capacity=which.capacity,
        exact=triton_tokens.exact_docs(problem) if refined else None,
        counts=own.counts,
        how=Scoring(problem.reduce, problem.normalize, asked.weights, doc_weights, bias),
        k=k,
        least=problem.k,
        mask=None if mask is None or len(mask) == 1 else room.copied("mask", mask),
        floor=None if problem.floor is None else room.copied("floor", row_pools.score_floors(problem)),
        order=id_places(problem) if refined else None,
    )


def _planned(problem: MaxSimProblem, room: Workspace) -> tuple[ScanPlan, Laid]:
    """The plan of the scan, and where tokens lie, which depend on the lengths of the queries alone."""
    offsets, alone = problem.queries.offsets, problem.reduce == "symmetric"

    def build() -> tuple[ScanPlan, Laid]:
        made = plan(problem)
        return made, triton_asked.laid(offsets, made.tile.block_m, alone)

    return room.latest("plan", (offsets.tobytes(), alone), build)


def _rows(problem: MaxSimProblem, which: Listed) -> Tensor:
    """int64 [N]: all rows."""
    stride = -(-which.n_rows // which.capacity)

    def build(device: torch.device) -> Tensor:
        return torch.from_numpy(spread(np.arange(which.n_rows), stride)).to(device)

    return triton_device.mirrored(problem.docs, ("every row", stride), build)


def propose(problem: MaxSimProblem, width: int) -> Candidates:
    """What of the documents can be among the k best of each query, in pools of twice the ``width``."""
    which = listed(problem, width)
    with room_for(problem, problem.k, which) as room:
        found, _ = steps(problem, which, problem.k, room, refined=False).scan(room)
        rows, upper, lower, counts = (each.cpu().numpy() for each in found[:4])
        dropped = selection.dropped(found).cpu().numpy().astype(np.float64)
    filled = np.arange(found.capacity) < counts[:, None]
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    upper, lower = upper[filled].astype(np.float64), lower[filled].astype(np.float64)
    middle = np.clip((upper + lower) / 2, -reference.FLOAT32_MAX, reference.FLOAT32_MAX)
    estimates = np.where(np.isnan(middle), 0.0, middle).astype(np.float32)
    return Candidates(rows[filled].astype(np.int64), offsets, estimates, dropped)


def attempt(problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt:
    """Propose, refine and select on the device, and wait for it once."""
    which = listed(asked, width)
    with room_for(asked, problem.k, which) as room:
        made = replace(steps(asked, which, problem.k, room), limits=limits(problem, room.device))
        return on_host(problem, made.answer(room).packed)


def refine(problem: MaxSimProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    device = triton_device.device_of(problem.docs)
    owner, rows = (triton_device.upload(each, device) for each in (first_rows(candidates.offsets), candidates.rows))
    weights = problem.query_weights, problem.doc_weights, problem.bias
    how = Scoring(
        problem.reduce, problem.normalize,
        *(None if each is None else triton_device.upload(each, device) for each in weights),
    )  # fmt: skip
    queries, docs = triton_tokens.exact_queries(problem), triton_tokens.exact_docs(problem)
    scores: F32 = maxsim_refine.scores(queries, docs, owner, rows, how).scores.cpu().numpy()
    return scores
