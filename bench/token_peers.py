"""The others in late interaction: the fastest scorers of documents on a CPU that their libraries offer, set up outside
the time and with the same number of threads. None has a top k but fast-plaid, whose search is approximate: the rest is
followed by torch.topk, or what NumPy has for it. What is not installed, or would crash, says so.

They are no dependencies of the benchmark: install them with ``--no-deps`` in an environment of its own, since most of
them ask for whole training stacks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.contestants import Answer, Contestant, Search, Unavailable, module, version_of
from bench.token_contestants import best
from pyengine.ragged import Ragged
from pyengine.types import F32

DOCS = 128  # documents padded together where all of them would not fit: what colpali-engine takes at once
FITS = 1 << 30  # bytes of a tensor of products that may be made at once
FROM_0 = "float32; maxima below 0 become 0"


class Packed:
    """Documents as one tensor [T, D] with their lengths [N]."""

    def __init__(self, docs: Ragged, threads: int) -> None:
        self.torch = module("torch")
        self.torch.set_num_threads(threads)
        self.values = self.torch.from_numpy(docs.values)
        self.lengths = self.torch.from_numpy(docs.lengths)

    def search(self, score: Callable[[Any], Any]) -> Search:
        """With ``score`` of one query [Lq, D] against everything, a tensor [N]."""

        def search(queries: Ragged, k: int) -> Any:
            scores = self.torch.stack([score(self.torch.from_numpy(query)) for query in queries])
            return self.torch.topk(scores, k, dim=1)

        return search


class Padded:
    """Documents as tensors [n, Ld, D] with masks [n, Ld]: all in one, or 128 at a time where the products of all with
    so many queries would not fit."""

    def __init__(self, docs: Ragged, threads: int) -> None:
        self.torch = module("torch")
        self.torch.set_num_threads(threads)
        self.rows = [self.torch.from_numpy(row) for row in docs]
        self._made: dict[int, list[tuple[Any, Any]]] = {}

    def parts(self, n_query_tokens: int) -> list[tuple[Any, Any]]:
        longest = max(len(row) for row in self.rows)
        all_fit = 4 * n_query_tokens * len(self.rows) * longest <= FITS
        step = len(self.rows) if all_fit else DOCS
        if step not in self._made:
            self._made = {step: [self._pad(self.rows[at : at + step]) for at in range(0, len(self.rows), step)]}
        return self._made[step]

    def _pad(self, rows: list[Any]) -> tuple[Any, Any]:
        lengths = self.torch.tensor([len(row) for row in rows])
        padded = self.torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, self.torch.arange(padded.shape[1])[None] < lengths[:, None]

    def search(self, score: Callable[[Any, Any, Any], Any]) -> Search:
        """With ``score`` of queries [Q, Lq, D], documents [n, Ld, D] and their mask, a tensor [Q, n]."""

        def search(queries: Ragged, k: int) -> Any:
            rows = [self.torch.from_numpy(query) for query in queries]
            asked = self.torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # a token of zeros adds 0
            scores = [score(asked, *part) for part in self.parts(asked.shape[0] * asked.shape[1])]
            return self.torch.topk(self.torch.cat(scores, dim=1), k, dim=1)

        return search


def segmented_maxsim(docs: Ragged, reduce: str, threads: int) -> Search:
    """colbert-ai's colbert_score_packed: a matrix product, then maxima in C++, which torch compiles when first used."""
    modeling = module("colbert.modeling.colbert", "colbert-ai")
    packed = Packed(docs, threads)
    try:
        modeling.ColBERT.try_load_torch_extensions(False)
    except Exception as error:  # torch's, when it finds no compiler or no ninja
        raise Unavailable(f"colbert-ai could not compile its extension: {str(error).splitlines()[0]}") from None
    return packed.search(lambda query: modeling.colbert_score_packed(query[None], packed.values, packed.lengths))


def maxsim_cpu(docs: Ragged, reduce: str, threads: int) -> Search:
    """maxsim_cpu.maxsim_scores_variable, a query at a time; its threads are OMP_NUM_THREADS."""
    library, rows = module("maxsim_cpu", "maxsim-cpu"), list(docs)
    return lambda queries, k: best(np.stack([library.maxsim_scores_variable(query, rows) for query in queries]), k)


def pylate_scores(docs: Ragged, reduce: str, threads: int) -> Search:
    """pylate.scores.colbert_scores on padded documents with their mask."""
    score = module("pylate.scores", "pylate").colbert_scores
    return Padded(docs, threads).search(lambda queries, padded, mask: score(queries, padded, documents_mask=mask))


def torch_einsum(docs: Ragged, reduce: str, threads: int) -> Search:
    """What people write: einsum, -inf where there is no token, amax, sum."""
    torch = module("torch")

    def score(queries: Any, padded: Any, mask: Any) -> Any:
        products = torch.einsum("qid,njd->qnij", queries, padded)
        return products.masked_fill_(~mask[None, :, None], -torch.inf).amax(dim=3).sum(dim=2)

    return Padded(docs, threads).search(score)


def torch_segments(docs: Ragged, reduce: str, threads: int) -> Search:
    """A product with the packed tokens, then torch.segment_reduce."""
    packed = Packed(docs, threads)
    segments = packed.torch.segment_reduce

    def score(query: Any) -> Any:
        return segments(packed.values @ query.T, "max", lengths=packed.lengths, axis=0).sum(dim=1)

    return packed.search(score)


def numpy_reduceat(docs: Ragged, reduce: str, threads: int) -> Search:
    """A product with the packed tokens, then numpy.maximum.reduceat. The command sets BLAS's threads."""
    starts = docs.offsets[:-1]

    def score(query: F32) -> F32:
        found: F32 = np.maximum.reduceat(docs.values @ query.T, starts, axis=0).sum(axis=1)
        return found

    return lambda queries, k: best(np.stack([score(query) for query in queries]), k)


def fast_plaid(docs: Ragged, reduce: str, threads: int) -> Search:
    """fast_plaid's search with its default options, over an index that is built here. A wheel for another torch than
    the one that is installed ends the process, so it is not loaded."""
    torch, wheel = module("torch"), version_of("fast-plaid")
    built_for = wheel.rpartition(".")[2]  # of 1.7.0.2110 it is torch 2.11.0
    if wheel and torch.__version__.split("+")[0].replace(".", "") != built_for:
        raise Unavailable(f"fast-plaid {wheel} is built for torch {built_for}, and would crash {torch.__version__}")
    torch.set_num_threads(threads)
    folder = tempfile.TemporaryDirectory(prefix="fast-plaid-")
    index = module("fast_plaid.search", "fast-plaid").FastPlaid(folder.name, device="cpu")
    index.create(documents_embeddings=[torch.from_numpy(row) for row in docs])

    def search(queries: Ragged, k: int) -> Any:
        assert folder  # the index lives as long as its search
        return index.search([torch.from_numpy(query) for query in queries], top_k=k, show_progress=False)

    return search


def _hits(found: Any) -> Answer:
    """Lists of (id, score)."""
    ids = np.array([[hit[0] for hit in row] for row in found], np.int64)
    return np.array([[hit[1] for hit in row] for row in found], np.float32), ids


PEERS = (
    Contestant("colbert-ai", segmented_maxsim, package="colbert-ai", exactness=FROM_0),
    Contestant("maxsim-cpu", maxsim_cpu, copies=1.0, package="maxsim-cpu", exactness="float32"),
    Contestant(
        "pylate",
        pylate_scores,
        copies=3.0,
        package="pylate",
        exactness="float32; in padded documents, maxima below 0 become 0",
    ),
    Contestant("torch-einsum", torch_einsum, copies=3.0, package="torch", exactness="float32"),
    Contestant("torch-segments", torch_segments, package="torch", exactness="float32"),
    Contestant("numpy", numpy_reduceat, package="numpy", exactness="float32; fails on empty documents"),
    Contestant("fast-plaid", fast_plaid, copies=1.0, read=_hits, package="fast-plaid", exactness="approximate"),
)
