"""A flat index in faiss's shape, exact to the bit, and the way there and back.

    from pyengine.integrations.faiss import IndexFlatIP

    index = IndexFlatIP(384)  # in the place of faiss.IndexFlatIP(384)
    index.add(vectors)
    D, I = index.search(queries, 10)

faiss itself (1.15) is needed for its own selectors and for `to_faiss` only.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.integrations import parts
from pyengine.searches.request import as_input
from pyengine.types import F32, I64, Bool

LIBRARY = "faiss-cpu"
DIFFERENCES = (
    "ties go to the smaller id",
    "distances are those of float64, rounded once, and do not depend on the batch",
    "a vector with NaN or inf, or an id that is there already, is a ValueError and adds nothing",
    "tensors are taken, and answered with tensors, without contrib.torch_utils",
)
METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1  # faiss's numbers
METRICS = {METRIC_INNER_PRODUCT: "dot", METRIC_L2: "l2"}
WORST = float(np.finfo(np.float32).max)  # with id -1, in the place of a neighbour that there is none of


class IndexFlat:
    """`faiss.IndexFlat`, and with `add_with_ids` `faiss.IndexIDMap2` over one.

    Parameters
    ----------
    d : int
        The dimensions of every vector.
    metric : METRIC_L2 or METRIC_INNER_PRODUCT
        Squared distances, or inner products.

    As in faiss, ids are places, and `remove_ids` moves those behind to the front, unless ids were given; missing
    neighbours have id -1 and distance 3.4028235e38 (-3.4028235e38 for inner products); a query with NaN or inf has
    none. Different from faiss: ties go to the smaller id; distances are those of the float64 specification, rounded
    once; results do not depend on the batch; a vector with NaN or inf, or an id that is there already, is a ValueError
    and adds nothing; float32 tensors are taken, and answered with tensors, without `contrib.torch_utils`.
    """

    is_trained = True
    _named: bool  # whether ids were given

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be METRIC_INNER_PRODUCT (0) or METRIC_L2 (1); got {metric!r}")
        self.d, self.metric_type = checks.positive_int(d, "d"), metric
        self.reset()

    @property
    def ntotal(self) -> int:
        return len(self.engine)

    def train(self, x: Any) -> None:
        """Nothing: a flat index knows all it needs."""

    def add(self, x: Any) -> None:
        """Vectors [n, d], whose ids are their places."""
        self._add(x, None)

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Vectors [n, d] with ids int64 [n], distinct, none below 0. All vectors of an index have such ids, or none."""
        self._add(x, checks.given(ids, "ids"))

    def _add(self, x: Any, ids: Any) -> None:
        if self.ntotal and self._named != (ids is not None):
            have, other = ("given", "add") if self._named else ("places", "add_with_ids")
            raise ValueError(f"ids of this index are {have}, so that {other} is not for it until it is empty")
        self.engine.add(checks.vectors(x, "x", self.d), ids)
        self._named = ids is not None

    def reset(self) -> None:
        """Remove all vectors."""
        self.engine = DenseIndex(self.d, METRICS[self.metric_type])
        self._named = False

    def remove_ids(self, x: Any) -> int:
        """Remove the vectors of a faiss selector or of int64 [n] ids, of which those that are not there do not matter.
        Returns how many."""
        ids = self._ids()
        gone = _selected(x, ids) if _is_selector(x) else checks.host_array(checks.unordered(x), "x").astype(np.int64)
        places = np.flatnonzero(np.isin(ids, gone))
        self.engine.remove(self.engine.ids[places])
        return len(places)

    def search(self, x: Any, k: int, *, params: Any = None, D: Any = None, I: Any = None) -> tuple[Any, Any]:  # noqa: E741
        """(distances float32 [n, k], ids int64 [n, k]) of the k nearest, best first, written to D and I if given.
        ``params`` may be faiss's SearchParameters with a selector."""
        rows, valid = self._queries(x)
        found = self.engine.search(rows[valid], k, allow=self._allowed(params))
        distances = np.full((len(rows), k), self._worst, np.float32)
        ids = np.full((len(rows), k), -1, np.int64)
        missing = found.ids < 0
        distances[valid] = np.where(missing, self._worst, found.scores)
        ids[valid] = np.where(missing, -1, self._places(found.ids))
        _fits(I, ids, "I")
        return _into(D, as_input(distances, x), "D"), _into(I, as_input(ids, x), "I")

    def assign(self, x: Any, k: int = 1) -> Any:
        """The ids alone, int64 [n, k]."""
        return self.search(x, k)[1]

    def range_search(self, x: Any, thresh: float, *, params: Any = None) -> tuple[NDArray[np.uint64], F32, I64]:
        """(limits uint64 [n+1], distances float32 [m], ids int64 [m]) of what is nearer than the threshold, best first:
        below it for METRIC_L2, above it for inner products."""
        rows, valid = self._queries(x)
        threshold = np.float32(thresh)
        found = self.engine.range_search(rows[valid], float(threshold), allow=self._allowed(params))
        kept = found.scores < threshold if self.metric_type == METRIC_L2 else found.scores > threshold
        owner = np.flatnonzero(valid)[np.repeat(np.arange(int(valid.sum())), np.diff(found.offsets))]
        counts = np.bincount(owner[kept], minlength=len(rows))
        limits = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
        return limits, found.scores[kept], self._places(found.ids[kept])

    def reconstruct(self, key: int, x: Any = None) -> Any:
        """The vector of an id, float32 [d], written to x if given."""
        return _into(x, self.reconstruct_batch([key])[0], "x")

    def reconstruct_batch(self, key: Any, x: Any = None) -> Any:
        """Those of ids [n], float32 [n, d]. Raises ValueError for an id that is not there."""
        wanted, again = np.unique(np.asarray(key, np.int64), return_inverse=True)
        if not self._named:
            outside = wanted[(wanted < 0) | (wanted >= self.ntotal)]
            if len(outside):
                raise ValueError(f"key must be below ntotal, {self.ntotal}, and not below 0; got {outside[0]}")
            wanted = self.engine.ids[wanted]
        return _into(x, self.engine.vectors(wanted)[again], "x")

    def reconstruct_n(self, n0: int = 0, ni: int = -1, x: Any = None) -> Any:
        """Those of ni places from n0 on (-1: all that follow), float32 [ni, d]."""
        count = self.ntotal - n0 if ni == -1 else ni
        if not 0 <= n0 <= n0 + count <= self.ntotal:
            raise ValueError(f"n0 and ni must lie within the {self.ntotal} vectors; got {n0} and {ni}")
        return _into(x, self.engine.vectors(self.engine.ids[n0 : n0 + count]), "x")

    def search_and_reconstruct(self, x: Any, k: int, *, params: Any = None) -> tuple[Any, Any, F32]:
        """`search`, and the vectors found, float32 [n, k, d], NaN where there is none."""
        distances, ids = self.search(x, k, params=params)
        vectors = np.full((*ids.shape, self.d), np.nan, np.float32)
        there = np.asarray(ids) >= 0
        vectors[there] = self.reconstruct_batch(np.asarray(ids)[there])
        return distances, ids, vectors

    @property
    def _worst(self) -> float:
        return WORST if self.metric_type == METRIC_L2 else -WORST

    def _queries(self, x: Any) -> tuple[F32, Bool]:
        """float32 [n, d], and which of them are finite."""
        rows = checks.vectors(x, "x", self.d)
        finite = np.asarray(np.isfinite(rows).all(axis=1))
        return rows, finite

    def _ids(self) -> I64:
        """The ids that the caller knows, int64 [ntotal]."""
        return self.engine.ids if self._named else np.arange(self.ntotal)

    def _places(self, ids: I64) -> I64:
        """From the engine's ids to those that the caller knows: places among what is left, unless they were given."""
        engine_ids = self.engine.ids
        if self._named or not len(engine_ids) or engine_ids[-1] == len(engine_ids) - 1:
            return ids
        return np.searchsorted(engine_ids, ids).astype(np.int64)

    def _allowed(self, params: Any) -> I64 | None:
        """The engine's ids that the parameters of a search select; None for all."""
        if params is None:
            return None
        if not hasattr(params, "sel"):
            raise TypeError(f"params must be faiss.SearchParameters; got {type(params).__name__}")
        return None if params.sel is None else self.engine.ids[np.isin(self._ids(), _selected(params.sel, self._ids()))]


class IndexFlatIP(IndexFlat):
    """`faiss.IndexFlatIP`: inner products, the largest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


class IndexFlatL2(IndexFlat):
    """`faiss.IndexFlatL2`: squared distances, the smallest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)


def from_faiss(index: Any) -> IndexFlat:
    """The vectors of a faiss index with inner products or squared distances, and their ids where it maps them
    (IndexIDMap, IndexIDMap2) or its inverted lists were given them, as an `IndexFlat`. Of an index that compresses
    vectors, these are the decoded ones.

    Raises TypeError for what is no faiss index, ValueError for another metric, RuntimeError (faiss's) for an index that
    cannot reconstruct its vectors.
    """
    faiss = parts.library("faiss", LIBRARY)
    if not isinstance(index, faiss.Index):
        raise TypeError(f"index must be a faiss index; got {type(index).__name__}")
    made = IndexFlat(index.d, index.metric_type)
    ids = _listed(faiss, index)
    if isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        inner = faiss.downcast_index(index.index)
        made.add_with_ids(inner.reconstruct_n(0, inner.ntotal), faiss.vector_to_array(index.id_map))
    elif ids is None or np.array_equal(ids, np.arange(index.ntotal)):
        made.add(index.reconstruct_n(0, index.ntotal))
    else:
        found = faiss.clone_index(index)  # which may be told to find its vectors by their ids
        faiss.extract_index_ivf(found).set_direct_map_type(faiss.DirectMap.Hashtable)
        made.add_with_ids(found.reconstruct_batch(ids), ids)
    return made


def to_faiss(index: IndexFlat) -> Any:
    """The same vectors in a `faiss.IndexFlat`, or in an `faiss.IndexIDMap2` over one where ids were given."""
    faiss = parts.library("faiss", LIBRARY)
    if not isinstance(index, IndexFlat):
        raise TypeError(f"index must be an IndexFlat of this module; got {type(index).__name__}")
    flat = faiss.IndexFlat(index.d, index.metric_type)
    if not index._named:
        flat.add(index.reconstruct_n())
        return flat
    mapped = faiss.IndexIDMap2(flat)  # which keeps it
    mapped.add_with_ids(index.reconstruct_n(), index.engine.ids.copy())
    return mapped


def _listed(faiss: Any, index: Any) -> I64 | None:
    """The ids in the inverted lists of a faiss index, ascending; None where it has no such lists."""
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is None:
        return None
    lists, sizes = inverted.invlists, [inverted.invlists.list_size(number) for number in range(inverted.nlist)]
    ids = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    return np.sort(np.concatenate([np.empty(0, np.int64), *ids]))


def _is_selector(value: Any) -> bool:
    faiss = sys.modules.get("faiss")
    return faiss is not None and isinstance(value, faiss.IDSelector)


def _selected(selector: Any, ids: I64) -> I64:
    """Those of some ids that a faiss selector has: by a search for zeros, which asks it in C++."""
    faiss: Any = sys.modules["faiss"]
    if not len(ids):
        return ids
    zeros = faiss.IndexIDMap(faiss.IndexFlatL2(1))
    zeros.add_with_ids(np.zeros((len(ids), 1), np.float32), ids.copy())
    found: I64 = zeros.range_search(np.zeros((1, 1), np.float32), 1.0, params=faiss.SearchParameters(sel=selector))[2]
    return found


def _into(target: Any, result: Any, name: str) -> Any:
    """The result, or what the caller gave to hold it."""
    if target is None:
        return result
    _fits(target, result, name)
    target[...] = result
    return target


def _fits(target: Any, result: Any, name: str) -> None:
    wanted, given = (
        (str(each.dtype).removeprefix("torch."), tuple(each.shape))
        for each in (result, result if target is None else target)
    )
    if given != wanted:
        raise ValueError(f"{name} must be {wanted[0]} of shape {wanted[1]}; got {given[0]} of shape {given[1]}")
