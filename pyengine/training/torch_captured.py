"""Searches as CUDA graphs, dense and by late interaction: `captured`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends import registry
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.problems.problem import DenseProblem, Documents, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from pyengine.types import TopK

if TYPE_CHECKING:
    from pyengine.backends.triton.triton_standing import Standing


class Captured:
    """One search, of ``n_queries`` queries at a time, launched as often as wanted: see `captured`.

    ``queries`` float32 [Q, D], or [Q, L, D] of L tokens each, is what a launch reads; ``scores`` float32 [Q, K],
    ``ids`` int64 [Q, K] and ``certified`` bool [Q] are what it writes, always the same tensors on the GPU. A query
    whose flag is False is not answered yet: more documents may have come near to its k-th best than there was room for,
    or it holds NaN or inf.

    An object serves one stream at a time.
    """

    def __init__(self, problem: Problem, backend: Any) -> None:
        self._backend = backend
        self._standing: Standing = backend.standing(problem)
        self.queries, found = self._standing.queries, self._standing.answer
        self.scores, self.ids, self.certified = found.scores, found.ids, found.certified.view(torch.bool)
        self.launch()  # which compiles what has not been
        self._replay = _graph(self.launch, self.queries.device) if self.queries.is_cuda else self.launch

    def launch(self) -> None:
        """Launch the kernels on the current stream, without a wait: for a part of a CUDA graph of yours."""
        self._standing.launch()

    def replay(self) -> None:
        """Launch the graph on the current stream, without a wait."""
        self._replay()

    def __call__(self, queries: Tensor) -> TopK:
        """Copy ``queries``, of the shape of `queries`, there and `replay`, without a wait: but for queries on the host
        that are not pinned, since the host copies those. Pinned ones may not change before the copy has run. The
        tensors of the result are those of this object: the next call writes them again. Raises ValueError for another
        shape."""
        if tuple(queries.shape) != tuple(self.queries.shape):
            raise ValueError(f"queries must have shape {tuple(self.queries.shape)}; got {tuple(queries.shape)}")
        self.queries.copy_(queries.detach(), non_blocking=True)
        self.replay()
        return TopK(self.scores, self.ids, self.certified)

    @exact.arithmetic()
    def finish(self) -> TopK:
        """Wait, and search once more for those of `queries` that are not certified: now all of the answer is the
        specification's. Raises ValueError for a query with NaN or inf."""
        certified = self.certified.cpu().numpy()
        if not certified.all():
            which = np.flatnonzero(~certified)
            found = exact_search(self._standing.asked().only(which), self._backend)
            at = torch.from_numpy(which).to(self.queries.device)
            for whole, part in zip((self.scores, self.ids, self.certified), found):
                whole[at] = torch.from_numpy(part).to(whole.device)
        return TopK(self.scores, self.ids, self.certified)


def captured(
    docs: Any,
    n_queries: int,
    k: int = 10,
    *,
    n_tokens: int | None = None,
    metric: str | None = None,
    mask: Any = None,
    bias: Any = None,
    dims: int | None = None,
    reduce: str | None = None,
) -> Captured:
    """A dense search, or one by late interaction, as a CUDA graph, by the Triton kernels: nothing is allocated, nothing
    waits for the host, and a call takes one launch.

        search = pyengine.torch.captured(index, 16, k=100)
        found = search(queries)  # on the GPU, the next call writes the same tensors
        ...                      # or: search.launch() in a graph of yours, which fills search.queries
        found = search.finish()  # waits, and answers what is not certified

    Parameters
    ----------
    docs : DenseIndex, MultiVectorIndex, or [N, D] as the documents of `pyengine.topk`
        As they are now: an index that changes is to be captured again, and a tensor on the GPU may not change.
    n_queries : int >= 1
        Of each call.
    n_tokens : int >= 1, with a MultiVectorIndex, and always
        L, of each query.
    k, metric, mask, bias, dims
        As for `pyengine.topk`, and fixed from now on. An index has its metric; default: "cosine". A MultiVectorIndex
        takes no ``metric`` and no ``dims``.
    reduce : "sum", "mean" or "symmetric", with a MultiVectorIndex; default: "sum"

    Raises
    ------
    TypeError, ValueError
        One sentence naming the argument.
    RuntimeError
        The Triton kernels cannot run this, or not as a graph, with the reason.
    """
    n_queries = checks.positive_int(n_queries, "n_queries")
    if isinstance(docs, SparseIndex):
        raise RuntimeError("a sparse search cannot be captured: the host makes its tables, of the terms of its queries")
    problem: Problem
    if isinstance(docs, MultiVectorIndex):
        _refused("with a MultiVectorIndex", metric=metric, dims=dims)
        problem = _tokens_problem(docs, n_queries, k, n_tokens, mask=mask, bias=bias, reduce=reduce or "sum")
    else:
        _refused("without a MultiVectorIndex", n_tokens=n_tokens, reduce=reduce)
        problem = _problem(docs, n_queries, k, metric, mask=mask, bias=bias, dims=dims)
    registry.choose("triton", problem)  # or says why not
    backend: Any = registry.of_family("triton", problem.family)
    if len(problem.docs) == 0:
        raise ValueError("docs must hold one document at least, to be captured; got none")
    try:
        with torch.inference_mode(False):  # what a call writes is made here, in whatever mode that call will be
            return Captured(problem, backend)
    except ArithmeticError:
        problem.docs.check_finite()  # names the first such row
        raise


def _problem(docs: Any, n_queries: int, k: int, metric: str | None, **given: Any) -> DenseProblem:
    """The search, of queries that are yet to come."""
    if isinstance(docs, DenseIndex):
        if metric not in (None, docs.metric):
            raise ValueError(f"metric must be that of the index, {docs.metric!r}, or not be given; got {metric!r}")
        return docs._problem(np.zeros((n_queries, docs.dim), np.float32), k, **given)
    rows = checks.documents(docs, docs, names=("docs", "docs"))
    queries = np.zeros((n_queries, rows.shape[1]), np.float32)
    return dense.prepare(queries, Documents(rows, cache={}), k, metric=metric or "cosine", **given)


def _tokens_problem(
    docs: MultiVectorIndex, n_queries: int, k: int, n_tokens: int | None, **given: Any
) -> MaxSimProblem:
    """The same, of queries of so many tokens."""
    if n_tokens is None:
        raise ValueError("n_tokens must be given with a MultiVectorIndex: the tokens of each query; got None")
    shape = n_queries, checks.positive_int(n_tokens, "n_tokens"), docs.dim
    problem = docs._problem(np.zeros(shape, np.float32), k, query_weights=None, **given)
    return problem.among(problem.docs.without_loose_codes())


def _refused(where: str, **given: Any) -> None:
    """What means nothing there."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} must not be given {where}; got {value!r}")


def _graph(launch: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The launches, which have run before, as one graph of their device, be it the current one or not. What other
    threads do meanwhile is no part of it, and allowed."""
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            launch()
    replay: Callable[[], None] = graph.replay
    return replay
