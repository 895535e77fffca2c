"""The workloads of sparse search. A query that is asked alone is one of many: `apart` of them are a call, one after
another, since how long one takes goes with how common its terms are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.workloads.shapes import MILLION, Heat, Workload, count_of, heats, numbered

APART = 32
LISTED = 8  # bytes of a posting: a 4-byte id and a float32 weight, which is what the floor counts
SCIFACT_DOCS, SCIFACT_TERMS = 5_183, 122.0  # distinct words of an abstract, on average


class SparseCorpus(NamedTuple):
    """What the workloads that share one corpus agree on. ``mean`` is how many terms a document has, on average."""

    n_docs: int
    data: str
    mean: float

    @property
    def n_bytes(self) -> int:
        return round(LISTED * self.n_docs * self.mean)

    def describe(self) -> str:
        return f"{self.data} {self.n_docs} x {self.mean:g}"


class Asking(NamedTuple):
    """What queries of one kind agree on: how many terms each has, and how many postings per document the lists of one
    hold on average."""

    n_terms: int
    touched: float


@dataclass(frozen=True)
class SparseWorkload(Workload):
    """The ``k`` documents of the largest inner product with each query, asked together or ``apart``. ``data`` is
    "splade" or "text", made up by `bench.workloads.sparse_data`, or "scifact"; ``query_terms`` and ``touched`` are
    those of `Asking`, ``kind`` a name for them."""

    n_docs: int = MILLION
    dim: int = 0  # there are none
    n_queries: int = APART
    k: int = 10
    metric: str = "dot"
    data: str = "splade"
    mean: float = 120.0
    query_terms: int = 29
    touched: float = 1.42
    apart: bool = True
    kind: str = "light"

    @property
    def name(self) -> str:
        words = [self.kind, f"n{count_of(self.n_docs)}", f"lq{self.query_terms}"]
        words += [f"{self.n_queries}x1" if self.apart else f"q{self.n_queries}"] * bool(self.n_queries)
        return "-".join([*words, *[f"k{self.k}"] * bool(self.n_queries)])

    def said(self, word: str) -> dict[str, Any] | None:
        if word in KINDS:
            kind = KINDS[word]
            return {name: getattr(kind, name) for name in ("kind", "data", "mean", "n_docs", "query_terms", "touched")}
        if apart := re.fullmatch(r"([1-9]\d*)x1", word):
            return {"n_queries": int(apart[1]), "apart": True}
        together = {"apart": False} if re.fullmatch(r"q\d+", word) else {}
        number = numbered(word, {"n": "n_docs", "lq": "query_terms", "q": "n_queries", "k": "k"})
        return number and number | together

    @property
    def corpus(self) -> SparseCorpus:
        return SparseCorpus(self.n_docs, self.data, self.mean)

    @property
    def asking(self) -> Asking:
        return Asking(self.query_terms, self.touched)

    @property
    def n_values(self) -> float:
        """How many postings the lists of the queries hold, on average; lists that queries share count for each."""
        return self.n_docs * self.touched * self.n_queries

    @property
    def operations(self) -> int:
        """A multiplication and an addition for each posting."""
        return round(2 * self.n_values)

    @property
    def title(self) -> str:
        asked = f"{self.n_queries} {'one by one' if self.apart else 'at once'}, {self.k:,}" if self.n_queries else ""
        return ", ".join(filter(None, [f"{self.kind}: {self.n_docs:,} x {self.mean:g}", asked]))


LIGHT = SparseWorkload()
HEAVY = replace(LIGHT, kind="heavy", query_terms=44, touched=2.65)
TEXT = SparseWorkload(100_000, data="text", mean=60.0, query_terms=6, touched=0.24, kind="text")
REAL = SparseWorkload(SCIFACT_DOCS, data="scifact", mean=SCIFACT_TERMS, query_terms=12, touched=2.9, kind="scifact")
KINDS = {each.kind: each for each in (LIGHT, HEAVY, TEXT, REAL)}
BUILT = replace(LIGHT, n_queries=0, apart=False)


def together(workload: SparseWorkload, n_queries: int = 256) -> SparseWorkload:
    return replace(workload, n_queries=n_queries, apart=False)


SPARSE: tuple[Heat, ...] = (
    Heat("sparse-build", (BUILT,), once=True),
    Heat("postings", (together(LIGHT, APART),)),
    Heat("sparse", (LIGHT, replace(LIGHT, k=1000)), "first"),
    *heats("sparse", together(LIGHT)),
    *heats("sparse", HEAVY, together(HEAVY)),
    Heat("lexicon", (LIGHT,)),
    Heat("bm25", (TEXT, replace(TEXT, k=1000)), "first"),
    *heats("bm25", together(TEXT), REAL),
)


def small(heat: Heat) -> Heat:
    """The same over few documents."""
    made = (
        replace(
            each,
            n_docs=min(2_000, each.n_docs),
            n_queries=min(4, each.n_queries),
            k=min(20, each.k),
        )
        for each in heat.workloads
    )
    return heat._replace(workloads=tuple(dict.fromkeys(made)))


QUICK: tuple[Heat, ...] = tuple(small(heat) for heat in SPARSE if heat.corpus.data != "scifact")
"""Whether everything works, not how fast."""
