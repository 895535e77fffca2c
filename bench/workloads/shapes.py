"""The workloads, by name, and which of them are raced together. Every speed that the project states is one of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

SCIFACT_DOCS, SCIFACT_QUERIES, SCIFACT_DIM = 5_183, 300, 384
MILLION = 1_000_000


class Corpus(NamedTuple):
    """What the workloads that share one corpus agree on; ``data`` is a kind of `bench.workloads.data`."""

    n_docs: int
    dim: int
    data: str

    @property
    def n_bytes(self) -> int:
        """Of its documents, in float32."""
        return 4 * self.n_docs * self.dim

    def describe(self) -> str:
        return f"{self.data} {self.n_docs} x {self.dim}"


DENSE_WORDS: dict[str, dict[str, Any]] = {
    **{metric: {"metric": metric} for metric in ("cosine", "dot", "l2")},
    **{data: {"data": data} for data in ("clustered", "scaled", "gaussian", "signs")},
    "scifact": {"data": "scifact", "n_docs": SCIFACT_DOCS, "dim": SCIFACT_DIM},
}


@dataclass(frozen=True)
class Workload:
    """One search: the ``k`` best of ``n_docs`` documents for each of ``n_queries`` queries; or, with 0 queries,
    something done to the documents. ``keep`` is the share of them that a filter allows (0: no filter), ``threads`` 0
    means as many as the command was told."""

    n_docs: int = 200_000
    dim: int = 768
    n_queries: int = 32
    k: int = 100
    metric: str = "cosine"
    data: str = "clustered"
    keep: float = 0.0
    threads: int = 0

    @property
    def name(self) -> str:
        words = [f"n{count_of(self.n_docs)}", f"d{self.dim}"]
        words += [f"q{self.n_queries}", f"k{self.k}"] * (self.n_queries > 0)
        words += [self.metric] * (self.metric != "cosine") + [self.data] * (self.data != "clustered")
        words += [f"keep{self.keep:.0%}"] * (self.keep > 0) + [f"t{self.threads}"] * (self.threads > 0)
        return "-".join(words)

    @property
    def parts(self) -> set[str]:
        """The words of the name, by which it can be chosen."""
        return set(self.name.split("-"))

    def said(self, word: str) -> dict[str, Any] | None:
        """The fields that a word of a name sets, None for no such word."""
        number = numbered(word, {"n": "n_docs", "d": "dim", "q": "n_queries", "k": "k", "t": "threads"})
        if share := re.fullmatch(r"keep([1-9]\d?|100)%", word):
            return {"keep": int(share[1]) / 100}
        return number or DENSE_WORDS.get(word)

    @property
    def corpus(self) -> Any:
        """A `Corpus`, or what another family has in its place: hashable, with ``n_bytes`` and ``describe()``."""
        return Corpus(self.n_docs, self.dim, self.data)

    @property
    def n_values(self) -> float:
        """How many numbers there are in the documents that may be returned: all are read."""
        return self.n_docs * self.dim * (self.keep or 1)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the whole score matrix, or of what the filter leaves of it."""
        return round(2 * self.n_values * self.n_queries)

    @property
    def title(self) -> str:
        """For a table: "N x D, Q, k", and what is unusual."""
        searched = f", {self.n_queries:,}, {self.k:,}" if self.n_queries else ""
        return f"{self.n_docs:,} x {self.dim}{searched}" + "".join(f", {word}" for word in self.name.split("-")[4:])


AnyWorkload = TypeVar("AnyWorkload", bound=Workload)


def named(name: str, base: AnyWorkload) -> AnyWorkload:
    """The workload of that name, where what the name does not say is as in ``base``: "n200k-d768-q32-k100".

    Raises:
        ValueError: for a word that such names do not have, or a number that is too small.
    """
    found = base
    for word in name.split("-"):
        fields = found.said(word)
        if fields is None:
            raise ValueError(f"a shape is words like those of {base.name!r}, numbers above 0; got {word!r} in {name!r}")
        found = replace(found, **fields)
    if found.n_docs < 1 or found.dim < min(1, base.dim) or found.k > found.n_docs:
        raise ValueError(f"a shape must have at least one document, one dimension and k documents; got {name!r}")
    return found


def numbered(word: str, fields: Mapping[str, str]) -> dict[str, Any] | None:
    """The field that a word such as "n200k" sets, None for other words and for 0."""
    found = re.fullmatch(r"([a-z]+)(\d+)([km]?)", word)
    if found is None or found[1] not in fields or not int(found[2]):
        return None
    return {fields[found[1]]: int(found[2]) * {"": 1, "k": 1000, "m": MILLION}[found[3]]}


def count_of(number: int) -> str:
    for unit, letter in ((MILLION, "m"), (1000, "k")):
        if number % unit == 0:
            return f"{number // unit}{letter}"
    return str(number)


class Heat(NamedTuple):
    """Workloads of one table that are raced in the same rounds, over one corpus. ``relative`` says to which of them the
    same contestant's time per query is compared: "first", "previous" or, "", to none. ``racing`` names those who take
    part where not all of the table do. ``once``: a call is enough."""

    table: str
    workloads: tuple[Workload, ...]
    relative: str = ""
    racing: tuple[str, ...] = ()
    once: bool = False

    @property
    def corpus(self) -> Any:
        return self.workloads[0].corpus


def heats(table: str, *workloads: Workload) -> tuple[Heat, ...]:
    return tuple(Heat(table, (each,)) for each in workloads)


BASE = Workload()
LARGE = Workload(n_docs=MILLION)
STORED = replace(LARGE, n_queries=0)
BATCHES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
UNTRAINED = ("pyengine-residual2", "pyengine-residual3", "pyengine-residual4", "faiss-sq4")
FAST = ("pyengine-int8", "pyengine-topk", "faiss", "torch", "sentence-transformers", "scann")  # at a million documents

DENSE: tuple[Heat, ...] = (
    Heat("search", (replace(LARGE, n_queries=1),)),
    Heat("memory", (replace(LARGE, n_queries=1000),), racing=FAST, once=True),
    *heats("binary", replace(LARGE, n_queries=1), replace(LARGE, n_queries=32)),
    *(Heat(table, (STORED,)) for table in ("build", "save", "load")),
    *heats("search", *(replace(BASE, n_queries=count) for count in (1, 32, 1024))),
    Heat(
        "batches", tuple(replace(BASE, n_queries=q) for q in BATCHES), "previous", ("pyengine-int8", "faiss", "torch")
    ),
    Heat("k", tuple(replace(BASE, k=k) for k in (10, 100, 1000)), "first"),
    Heat("k", tuple(replace(LARGE, n_queries=1, k=k) for k in (10, 100, 1000)), "first"),
    Heat("filters", tuple(replace(BASE, n_queries=256, keep=keep) for keep in (0, 0.5, 0.1, 0.01)), "first"),
    *(
        Heat("threads", tuple(replace(BASE, n_queries=q, threads=t) for t in (2, 1)), "first", ("pyengine-int8",))
        for q in (1, 32, 1024)
    ),
    Heat("residual", (replace(BASE, n_queries=64, k=10),)),
    *heats("search", replace(BASE, dim=128), replace(BASE, dim=384)),
    *heats("search", replace(BASE, metric="dot", data="scaled"), replace(BASE, metric="l2", data="scaled")),
    *heats("search", replace(BASE, data="gaussian")),
    *heats("search", Workload(SCIFACT_DOCS, SCIFACT_DIM, SCIFACT_QUERIES, k=10, data="scifact")),
)


def small(heat: Heat, n_docs: int = 5_000, most_queries: int = 512) -> Heat:
    """The same over few documents, with smaller batches and a k that filters leave, without the slowest setups."""
    small_k = 10 if heat.table == "filters" else None
    workloads = dict.fromkeys(
        replace(each, n_docs=n_docs, n_queries=min(each.n_queries, most_queries), k=small_k or each.k)
        for each in heat.workloads
    )
    return heat._replace(workloads=tuple(workloads), racing=UNTRAINED if heat.table == "residual" else heat.racing)


QUICK: tuple[Heat, ...] = tuple(
    dict.fromkeys(small(heat) for heat in DENSE if (heat.corpus.dim, heat.corpus.data) == (BASE.dim, BASE.data))
)
"""All tables in less than a minute: whether everything works, not how fast."""
