"""One validated search: what a backend is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from pyengine import checks
from pyengine.living import Living
from pyengine.rows import Rows
from pyengine.types import F32, F64, I64, U8

T = TypeVar("T")


@dataclass(frozen=True)
class Codes:
    """int8 codes of unit vectors: d/|d| ~ scale * (code - 128), off by at most ``residual`` in Euclidean norm.

    ``codes`` uint8 [N, D padded to 64] (biased by 128), ``scale`` and ``residual`` float32 [N]. With ``planes`` = u
    above 0 the codes are the odd integers of u bit planes, uint8 [N, u * (D padded to 64) / 8] (see `Rows`). Where
    residuals are too large to rule out documents, ``prunes`` is False: the codes rank, and an exact search leaves them.
    """

    codes: U8
    scale: F32
    residual: F32
    planes: int = 0
    prunes: bool = True


@dataclass(frozen=True)
class Documents:
    """An unchanging view of a corpus, as backends see it.

    ``rows`` [N, D] are the vectors that define the scores (float32 NumPy, `Rows` that decode to it, or a torch tensor
    on a GPU), ``codes`` a cheaper form of them, ``norms`` float64 [N] their norms where known, ``checked`` whether they
    are known to be finite. ``cache`` keeps what a backend derives from this corpus (`derived`) for as long as the
    corpus stands. ``store`` names the store that they are from. ``living`` says which rows are documents (None: all);
    `pyengine.dense.prepare` masks the others.
    """

    rows: Any
    codes: Codes | None = None
    norms: F64 | None = None
    checked: bool = False
    cache: dict[Any, Any] | None = None
    living: Living | None = None
    store: str = "float32"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def device(self) -> Any:
        return checks.device_of(self.rows)

    def vectors(self) -> Any:
        """The rows as one float32 array or tensor [N, D]: decoded, at the first call, where they are kept otherwise."""
        rows = self.rows
        return self.derived("vectors", lambda: rows[:]) if isinstance(rows, Rows) else rows

    def without_loose_codes(self) -> Documents:
        """These documents, as an exact search scans them."""
        return self if self.codes is None or self.codes.prunes else replace(self, codes=None)

    def trusting_loose_codes(self) -> Documents:
        """These documents, as a search that only ranks by codes scans them: with residuals that stand in no one's way."""
        codes = self.codes
        if codes is None or codes.prunes:
            return self
        none = self.derived("no residuals", lambda: np.zeros(len(self), np.float32))
        return replace(self, codes=replace(codes, residual=none))

    def derived(self, key: Any, build: Callable[[], T]) -> T:
        """``build()``, kept under ``key`` when this corpus outlives the search."""
        if self.cache is None:
            return build()
        if key not in self.cache:
            self.cache[key] = build()
        value: T = self.cache[key]
        return value


@dataclass(frozen=True)
class DenseProblem:
    """A dense top-k search. ``queries`` float32 [Q, D] (on the host, wherever the documents are), ``mask`` a bitmap
    uint8 [1 or Q, ceil(N/8)], ``bias`` float64 [N], ``ids`` int64 [N] or None for row numbers."""

    queries: F32
    docs: Documents
    k: int
    metric: str
    dims: int
    mask: U8 | None = None
    bias: F64 | None = None
    ids: I64 | None = None
    num_threads: int = 1

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    def only(self, which: I64) -> DenseProblem:
        """The same search for some of the queries."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[which]
        return replace(self, queries=self.queries[which], mask=mask)

    def describe(self) -> str:
        extras = [name for name in ("mask", "bias") if getattr(self, name) is not None]
        queries = f"queries float32 [{self.n_queries}, {self.queries.shape[1]}]"
        documents = f"documents {self.docs.store} [{len(self.docs)}, {self.docs.dim}]"
        where = f"dims {self.dims}, device {self.docs.device or 'cpu'}"
        added = f", with {' and '.join(extras)}" if extras else ""
        return f"dense top-{self.k}, {self.metric}, {queries}, {documents}, {where}{added}"


def first_rows(offsets: I64) -> I64:
    """The query number [M] of each candidate."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
