"""Searches on a GPU of documents that it cannot hold, of any family. One part of them after another is copied, or laid
out, while the part before it is scanned; what a scan lists is scored by the specification on the host, where the
documents are, and the k best so far are the floor of the next scan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pyengine.inputs import lists
from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Codes, Documents, Problem
from pyengine.problems.problem_sparse import TermRows
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Candidates

P = TypeVar("P", bound=Problem)
KEPT = {"float16": 2, "bfloat16": 2, "codes": 1}  # bytes of a dimension; else float32
LEAST = 1 << 26  # bytes: where less than this is free, and not enough for all, a GPU is of no use
POOLS = 1 << 30  # bytes that a search needs beside the documents, at most
AT_A_TIME = 3  # of the parts' size, in what is free: two parts, and half as much again for what a search needs


class Share(NamedTuple):
    """What a GPU keeps of documents under a ``key``: so many bytes ``fixed`` for each, and for ``each`` of the entries
    that a document has of its own number, tokens or weights."""

    key: Any
    fixed: int
    each: int = 0


@dataclass(frozen=True)
class Footprint:
    """What ``count`` documents take on a GPU. The entries of document n are ``offsets[n]:offsets[n + 1]``, int64 [N+1]
    (None: it has none)."""

    shares: tuple[Share, ...]
    count: int
    offsets: I64 | None = None

    def lacking(self, kept: Callable[[Any], bool]) -> int:
        """The bytes of all documents under the keys that are not ``kept``."""
        entries = 0 if self.offsets is None else int(self.offsets[-1])
        return sum(own.fixed * self.count + own.each * entries for own in self.shares if not kept(own.key))

    def before(self, row: int) -> int:
        """The bytes of the documents before this one."""
        entries = 0 if self.offsets is None else int(self.offsets[row])
        return sum(own.fixed * row + own.each * entries for own in self.shares)

    @property
    def largest(self) -> int:
        """The bytes of the document that has most."""
        longest = 0 if self.offsets is None else int(np.diff(self.offsets).max(initial=0))
        return sum(own.fixed + own.each * longest for own in self.shares)


def vector_bytes(docs: Documents) -> tuple[int, int]:
    """Bytes of a vector of the host that a GPU keeps: as it is, or as float32 where it is of few bits; and as int8
    codes, where those are scanned, and are not the vectors."""
    kind = docs.rows.kind if isinstance(docs.rows, Rows) else "float32"
    codes = isinstance(docs.codes, Codes) and not docs.codes.planes
    coded = kind != "codes" and (codes or kind not in KEPT)
    return KEPT.get(kind, 4) * docs.dim, docs.dim if coded else 0


def row_bytes(rows: TermRows) -> tuple[int, int]:
    """Bytes of a sparse row beside its weights, and of each of these."""
    steps = 0 if rows.low is None else 2 * rows.low.itemsize
    return rows.offsets.itemsize + steps, rows.terms.itemsize + rows.values.itemsize


def for_documents(free: int) -> int:
    """The bytes that documents may take of so many free ones: a sixteenth, or `POOLS`, is left to searches."""
    return free - min(POOLS, free // 16)


def cuts(taken: Footprint, lacking: int, free: int | None) -> list[slice] | None:
    """The parts in which documents pass through a GPU of so many ``free`` bytes (None: enough) that is ``lacking`` so
    many of theirs; None where it can hold them all."""
    if free is None or lacking <= free:
        return None
    room, found, first = free // AT_A_TIME, list[slice](), 0
    while first < taken.count:
        fits = bisect_right(range(taken.count + 1), taken.before(first) + room, key=taken.before) - 1
        found.append(slice(first, max(first + 1, fits)))
        first = found[-1].stop
    return found


def refusals(taken: Footprint, lacking: int, free: int | None, whole: bool = False) -> list[str]:
    """Why documents can neither be held nor, unless they must be there ``whole``, pass in parts: see `cuts`."""
    if free is None or lacking <= free:
        return []
    least = lacking if whole else min(lacking, LEAST)
    if least > free:
        return [f"it needs {least / 1e6:,.0f} MB of the GPU, of which {free / 1e6:,.0f} are free"]
    largest, room = taken.largest, free // AT_A_TIME
    if largest > room:
        return [
            f"its documents pass through the GPU in parts of {room / 1e6:,.0f} MB, and one takes {largest / 1e6:,.0f}"
        ]
    return []


def facts(found: list[slice] | None) -> dict[str, str]:
    """For `explain`."""
    if found is None:
        return {}
    most = max(part.stop - part.start for part in found)
    return {"documents": f"in {len(found):,} parts of at most {most:,}: the GPU cannot hold all {found[-1].stop:,}"}


def propose(
    problem: P,
    parts: Sequence[slice],
    fetch: Callable[[P], object],
    scan: Callable[[P], Candidates],
    refine: Callable[[P, Candidates], F32],
) -> Candidates:
    """What may be among the k best, with the specification's scores, by ``refine`` on the host; two of the ``parts``
    are on the GPU at a time. ``fetch`` copies what a part's ``scan`` reads, and returns when it is there; it is called
    in another thread."""
    if problem.n_queries == 0 or not parts:
        return exact.everything(problem)

    def fetched(part: slice) -> P:
        with exact.arithmetic():
            there = problem.part(part)
            fetch(there)
        return there

    best = np.full((problem.n_queries, min(problem.k, len(problem.docs))), -np.inf, np.float32)
    found = []
    with ThreadPoolExecutor(1) as copying:
        ready = copying.submit(fetched, parts[0])
        for part, following in zip(parts, [*parts[1:], None]):
            there = ready.result()
            if following is not None:
                ready = copying.submit(fetched, following)
            listed = scan(replace(there, floor=_floor(problem, best)))
            listed = listed._replace(rows=listed.rows + part.start)
            found.append(listed._replace(estimates=refine(problem, listed)))
            best = _best(problem, best, found[-1])
    return _together(found)


def _floor(problem: Problem, best: F32) -> F64 | None:
    """float64 [Q]: a rank score below that of the k-th best so far, and above all that are worse; a document that is
    dropped for it cannot even tie."""
    kth = best.min(axis=1)
    with np.errstate(over="ignore"):
        floor: F64 = np.nextafter(kth, np.float32(-np.inf)).astype(np.float64)
    return floor if problem.floor is None else np.maximum(floor, problem.floor)


def _best(problem: Problem, best: F32, found: Candidates) -> F32:
    """float32 [Q, k]: the rank scores of the best so far that may be returned, -inf where there are fewer."""
    if problem.filters is not None and problem.filters.groups is None:  # of a group the better may be in another part
        found = problem.eligible(found)
    scores, ids = exact.select(replace(problem, ids=None, k=best.shape[1]), found, found.estimates)
    new = np.where(ids >= 0, reference.rank_score(scores, problem.metric), np.float32(-np.inf))
    worst = best.shape[1]
    kept: F32 = -np.partition(-np.concatenate([best, new], axis=1), worst - 1, axis=1)[:, :worst]
    return kept


def _together(found: Sequence[Candidates]) -> Candidates:
    """One list for each query, of those of all parts; a bound on what any of them dropped."""
    owner = np.concatenate([lists.first_rows(each.offsets) for each in found])
    order = np.argsort(owner, kind="stable")
    lengths = np.sum([np.diff(each.offsets) for each in found], axis=0)
    rows, estimates = (np.concatenate([getattr(each, name) for each in found])[order] for name in ("rows", "estimates"))
    dropped = np.max([each.dropped for each in found], axis=0)
    return Candidates(rows, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), estimates, dropped)
