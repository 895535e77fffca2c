"""One validated search: what a backend is asked. The families of kernels share `Corpus` and `Problem`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from pyengine import checks
from pyengine.inputs import lists
from pyengine.inputs.filters import Filters
from pyengine.inputs.living import Living
from pyengine.inputs.rows import Rows
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, U8, Candidates

T = TypeVar("T")
C = TypeVar("C", bound="Corpus")
P = TypeVar("P", bound="Problem")
ALL = (1 << 31) - 1  # as k: every document that qualifies


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """An unchanging view of N documents, as backends see it: what those of every family have.

    ``cache`` keeps what a backend derives from this corpus (`derived`) for as long as the corpus stands. ``living``
    says which rows are documents (None: all); `pyengine.searches.request.fields` masks the others.
    """

    cache: dict[Any, Any] | None = None
    living: Living | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def store(self) -> str:
        """The name of the store that they are from."""
        raise NotImplementedError

    @property
    def codes(self) -> Codes | Rows | None:
        """A cheaper form of their vectors; `Rows` are vectors near them, without a bound."""
        raise NotImplementedError

    @property
    def checked(self) -> bool:
        """Whether their vectors are known to be finite."""
        raise NotImplementedError

    @property
    def device(self) -> Any:
        """The torch device of their vectors, None for the host."""
        raise NotImplementedError

    def check_finite(self) -> None:
        """Raise ValueError, naming the first, for a vector with NaN or inf."""
        raise NotImplementedError

    def without_loose_codes(self: C) -> C:
        """These documents, as an exact search scans them."""
        raise NotImplementedError

    def trusting_loose_codes(self: C) -> C:
        """These documents, as a search that only ranks scans them: with residuals that stand in nothing's way."""
        raise NotImplementedError

    def part(self: C, which: slice) -> C:
        """Consecutive documents, as a corpus that keeps what is derived from it."""
        raise NotImplementedError

    @property
    def n_living(self) -> int:
        """How many of the rows are documents, to which masks, biases and groups refer."""
        return len(self) if self.living is None else len(self.living)

    def rows_of(self, ids: I64 | None, wanted: I64) -> I64:
        """The rows of some ids, where ``ids`` int64 [N] are those of the rows (None: row numbers); -1 for an unknown
        one. Nothing is built where ids rise, as they do when they count on. Of an id that was removed and came again,
        it is the last row."""
        if ids is None or len(ids) == 0:
            return np.where((wanted >= 0) & (wanted < (len(self) if ids is None else 0)), wanted, -1)
        order = self.id_order(ids)
        place = np.maximum(np.searchsorted(ids, wanted, side="right", sorter=order) - 1, 0)
        rows: I64 = place if order is None else order[place]
        known = ids[rows] == wanted
        return np.where(known if self.living is None else known & self.living.has(rows), rows, -1)

    def id_order(self, ids: I64) -> I64 | None:
        """An order of the rows by which their ``ids`` rise, None where they do as they are."""
        return self.derived(
            "order of ids", lambda: None if (ids[1:] > ids[:-1]).all() else np.argsort(ids, kind="stable")
        )

    def derived(self, key: Any, build: Callable[[], T]) -> T:
        """``build()``, kept under ``key`` when this corpus outlives the search."""
        if self.cache is None:
            return build()
        if key not in self.cache:
            self.cache[key] = build()
        value: T = self.cache[key]
        return value


@dataclass(frozen=True)
class PlainCorpus(Corpus):
    """N documents in host memory, ``rows``, which were checked when they were made and have no cheaper form."""

    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def codes(self) -> None:
        return None

    @property
    def checked(self) -> bool:
        return True

    @property
    def device(self) -> None:
        return None

    def check_finite(self) -> None:
        """They are."""

    def without_loose_codes(self: C) -> C:
        return self

    def trusting_loose_codes(self: C) -> C:
        return self


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

    def part(self, which: slice) -> Codes:
        """Those of some rows."""
        return replace(self, codes=self.codes[which], scale=self.scale[which], residual=self.residual[which])


@dataclass(frozen=True)
class Documents(Corpus):
    """A corpus of vectors, one for each document, or for each token (`pyengine.problems.problem_maxsim`).

    ``rows`` [N, D] are the vectors that define the scores (float32 NumPy, `Rows` that decode to it, or a torch tensor
    of float32 or 16 bits on a GPU), ``codes`` a cheaper form of them, ``norms`` float64 [N] their norms where known,
    ``checked`` whether they are known to be finite. ``store`` names the store that they are from.
    """

    rows: Any
    codes: Codes | Rows | None = None
    norms: F64 | None = None
    checked: bool = False
    store: str = "float32"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def device(self) -> Any:
        return checks.device_of(self.rows)

    def check_finite(self) -> None:
        checks.finite(self.rows, "docs")

    def part(self, which: slice) -> Documents:
        return Documents(
            rows=self.rows.part(which) if isinstance(self.rows, Rows) else self.rows[which],
            codes=None if self.codes is None else self.codes.part(which),
            norms=None if self.norms is None else self.norms[which],
            checked=self.checked,
            store=self.store,
            cache={},
        )

    def vectors(self) -> Any:
        """The rows as one float32 array or tensor [N, D]: decoded, at the first call, where they are kept otherwise."""
        rows = self.rows
        if checks.is_torch(rows):
            return self.derived("vectors", rows.float)  # itself, where it is float32
        return self.derived("vectors", lambda: rows[:]) if isinstance(rows, Rows) else rows

    def without_loose_codes(self) -> Documents:
        loose = isinstance(self.codes, Rows) or (self.codes is not None and not self.codes.prunes)
        return replace(self, codes=None) if loose else self

    def trusting_loose_codes(self) -> Documents:
        codes = self.codes
        if not isinstance(codes, Codes) or codes.prunes:
            return self
        none = self.derived("no residuals", lambda: np.zeros(len(self), np.float32))
        return replace(self, codes=replace(codes, residual=none))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A top-k search: what those of every family have. ``metric`` tells scores from rank scores, ``mask`` is a bitmap
    uint8 [1 or Q, ceil(N/8)], ``bias`` float64 [N], ``ids`` int64 [N] or None for row numbers.

    The search core sees to ``filters``; a backend may ignore them. ``floor`` and ``ceiling``, float64 [Q], are hints
    that it may use: rank scores below and above which a document does not count. One that is certainly above the
    ceiling need neither be listed nor bounded by what is ``dropped``.
    """

    family: ClassVar[str]
    docs: Corpus
    k: int
    metric: str
    mask: U8 | None = None
    bias: F64 | None = None
    ids: I64 | None = None
    num_threads: int = 1
    filters: Filters | None = None
    floor: F64 | None = None
    ceiling: F64 | None = None
    sure: bool = False  # whether a backend is to list k documents that surely come before what it drops

    @property
    def n_queries(self) -> int:
        raise NotImplementedError

    def queries_only(self, which: I64) -> dict[str, Any]:
        """The fields, beyond those of this class, that hold queries: for these of them."""
        raise NotImplementedError

    def docs_only(self, which: slice) -> dict[str, Any]:
        """The fields, beyond those of this class, that lie as the documents do: for these of them."""
        return {}

    def among(self: P, docs: Corpus) -> P:
        """The same search of other documents."""
        return self if docs is self.docs else replace(self, docs=docs)

    def only(self: P, which: I64) -> P:
        """The same search for some of the queries."""
        return replace(
            self,
            **self.queries_only(which),
            mask=self.mask if self.mask is None or len(self.mask) == 1 else self.mask[which],
            filters=None if self.filters is None else self.filters.only(which),
            floor=None if self.floor is None else self.floor[which],
            ceiling=None if self.ceiling is None else self.ceiling[which],
        )

    def part(self: P, which: slice) -> P:
        """The same search of consecutive documents, whose row numbers begin anew, before anything but the mask filters
        it: of `Filters` an empty one says that something will."""
        return replace(
            self,
            **self.docs_only(which),
            docs=self.docs.part(which),
            mask=None if self.mask is None else _bits(self.mask, which),
            bias=None if self.bias is None else self.bias[which],
            ids=None if self.ids is None else self.ids[which],
            filters=None if self.filters is None else Filters(),
        )

    def asking(self: P, places: int) -> P:
        """What a backend is asked so that k of so many ``places`` may be eligible."""
        if self.filters is None:
            return self if places == self.k else replace(self, k=places)
        return replace(self, k=places, floor=self.filters.floor(), ceiling=self.filters.ceiling())

    def places(self) -> int:
        """How many candidates to ask for at first."""
        return self.k if self.filters is None else self.filters.places(self.k)

    def most(self) -> int:
        """At most how many of the k places can be filled."""
        return self.k if self.filters is None else self.filters.most(self.k)

    def allowed(self, candidates: Candidates) -> Candidates:
        """Those that the mask allows."""
        if self.mask is None:
            return candidates
        owner = lists.first_rows(candidates.offsets) if len(self.mask) > 1 else 0
        bits = self.mask[owner, candidates.rows >> 3] >> (candidates.rows & 7).astype(np.uint8)
        return lists.take(candidates, (bits & 1).astype(bool))

    def not_excluded(self, candidates: Candidates) -> Candidates:
        """Those that ``exclude`` leaves."""
        if self.filters is None or self.filters.excluded is None:
            return candidates
        return lists.take(candidates, ~self.filters.excluded.hold(candidates, len(self.docs)))

    def eligible(self, candidates: Candidates) -> Candidates:
        """Those that may be returned, by their estimates, which are to be the scores."""
        if self.filters is None:
            return candidates
        rank = reference.rank_score(candidates.estimates, self.metric)
        return lists.take(candidates, self.filters.eligible(candidates, rank, self.ids_of(candidates.rows)))

    def ids_of(self, rows: I64) -> I64:
        return rows if self.ids is None else self.ids[rows]

    def describe(self) -> str:
        """In words, for `explain` and for errors."""
        extras = [name for name in ("mask", "bias") if getattr(self, name) is not None]
        extras += [] if self.filters is None else self.filters.describe()
        added = f", with {' and '.join(extras)}" if extras else ""
        wanted = "all" if self.k == ALL else f"top-{self.k}"
        return f"{self.family} {wanted}, {self.describe_operands()}{added}"

    def describe_operands(self) -> str:
        """The scores, the queries and the documents."""
        raise NotImplementedError


def _bits(mask: U8, which: slice) -> U8:
    """A bitmap [Q, ceil(n/8)] of these n documents, of one of all."""
    count, shift = which.stop - which.start, which.start % 8
    part = mask[:, which.start // 8 : -(-which.stop // 8)]
    if shift:
        part = (part >> shift) | np.pad(part[:, 1:] << (8 - shift), ((0, 0), (0, 1)))
    part = np.array(part[:, : -(-count // 8)])
    if count % 8:
        part[:, -1] &= (1 << count % 8) - 1
    return part


@dataclass(frozen=True, kw_only=True)
class DenseProblem(Problem):
    """A dense top-k search. ``queries`` float32 [Q, D] (on the host, wherever the documents are), of which the first
    ``dims`` dimensions are scored."""

    family: ClassVar[str] = "dense"
    docs: Documents
    queries: F32
    dims: int

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    def queries_only(self, which: I64) -> dict[str, Any]:
        return {"queries": self.queries[which]}

    def describe_operands(self) -> str:
        queries = f"queries float32 [{self.n_queries}, {self.queries.shape[1]}]"
        documents = f"documents {self.docs.store} [{len(self.docs)}, {self.docs.dim}]"
        return f"{self.metric}, {queries}, {documents}, dims {self.dims}, device {self.docs.device or 'cpu'}"
