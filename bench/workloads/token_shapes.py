"""The workloads of late interaction, with the letters of the rows that the project has promised."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bench.workloads.shapes import Heat, Workload, count_of, heats, numbered
from pyengine.types import I64


class Lengths(NamedTuple):
    """How many tokens documents have: from ``low`` to ``high``, most of them short, ``mean`` on average."""

    low: int
    high: int
    mean: int

    @cache  # noqa: B019 (of a tuple: what it keeps is small)
    def of(self, n_docs: int) -> I64:
        """int64 [N]: evenly spaced quantiles of low + (high - low) x^p, in a random order; p gives the mean."""
        if self.low == self.high:
            return np.full(n_docs, self.low, np.int64)
        power = (self.high - self.low) / (self.mean - self.low) - 1
        places = (np.arange(n_docs) + 0.5) / n_docs
        lengths = np.rint(self.low + (self.high - self.low) * places**power).astype(np.int64)
        return np.random.default_rng(n_docs).permutation(lengths)


TEXTS, PAGES, PASSAGES, SHORT = Lengths(20, 300, 123), Lengths(700, 1302, 1001), Lengths(20, 180, 60), Lengths(2, 40, 9)
BATCH, LONG_BATCH = Lengths(40, 180, 110), Lengths(1024, 1024, 1024)
SCIFACT_DOCS, SCIFACT_TOKENS, ABSTRACTS = 165, 40_215, Lengths(80, 256, 244)  # of `pyengine.demos.demo_maxsim`


LENGTHS = (TEXTS, PAGES, PASSAGES, BATCH, LONG_BATCH, ABSTRACTS, SHORT)  # a mean that is none of theirs is every length
REDUCTIONS = ("sum", "mean")


class TokenCorpus(NamedTuple):
    """What the workloads that share one corpus agree on; the queries are made with it."""

    n_docs: int
    dim: int
    data: str
    lengths: Lengths
    query_tokens: int

    @property
    def n_tokens(self) -> int:
        return SCIFACT_TOKENS if self.data == "scifact" else int(self.lengths.of(self.n_docs).sum())

    @property
    def n_bytes(self) -> int:
        return 4 * self.n_tokens * self.dim

    def describe(self) -> str:
        return f"{self.data} {self.n_docs} x {self.lengths.mean} x {self.dim}"


@dataclass(frozen=True)
class TokenWorkload(Workload):
    """The ``k`` documents that score best for each query of ``query_tokens`` tokens; ``metric`` is the reduction.
    ``letter`` is its row's."""

    n_docs: int = 1000
    dim: int = 128
    n_queries: int = 1
    k: int = 10
    metric: str = "sum"
    letter: str = ""
    lengths: Lengths = TEXTS
    query_tokens: int = 32

    @property
    def name(self) -> str:
        words = [self.letter] * bool(self.letter)
        words += [f"n{count_of(self.n_docs)}", f"ld{self.lengths.mean}", f"d{self.dim}", f"q{self.n_queries}"]
        words += [f"lq{self.query_tokens}"] + [f"k{self.k}"] * (self.k > 0)
        words += [self.metric] * (self.metric != "sum") + [self.data] * (self.data != "clustered")
        return "-".join(words)

    def said(self, word: str) -> dict[str, Any] | None:
        number = numbered(word, {"lq": "query_tokens", "ld": "lengths"})
        if number and "lengths" in number:
            mean = number["lengths"]
            return {"lengths": next((each for each in LENGTHS if each.mean == mean), Lengths(mean, mean, mean))}
        if word == "scifact":
            return {"data": word, "n_docs": SCIFACT_DOCS, "lengths": ABSTRACTS}
        letter = re.fullmatch(r"[A-Z]'?", word)
        return number or (
            {"letter": word} if letter else {"metric": word} if word in REDUCTIONS else super().said(word)
        )

    @property
    def corpus(self) -> TokenCorpus:
        return TokenCorpus(self.n_docs, self.dim, self.data, self.lengths, self.query_tokens)

    @property
    def n_values(self) -> float:
        return self.corpus.n_tokens * self.dim

    @property
    def operations(self) -> int:
        """Multiplications and additions of all products of tokens."""
        return round(2 * self.n_values * self.query_tokens * self.n_queries)

    @property
    def title(self) -> str:
        asked = f"{self.n_queries} x {self.query_tokens}"
        return f"{self.letter} {self.n_docs:,} x {self.lengths.mean} x {self.dim}, {asked}, {self.k}".strip()


A = TokenWorkload(letter="A")
B = TokenWorkload(letter="B", lengths=PAGES)
C = replace(A, letter="C", n_queries=32)
D = TokenWorkload(letter="D", n_docs=32, n_queries=32, k=0, lengths=BATCH)
D_LONG = replace(D, letter="D'", lengths=LONG_BATCH)
E = tuple(TokenWorkload(20_000, n_queries=31, k=k, letter="E", lengths=PASSAGES) for k in (10, 100))
G = replace(A, letter="G")
REAL = TokenWorkload(SCIFACT_DOCS, n_queries=80, letter="R", lengths=ABSTRACTS, query_tokens=21, data="scifact")

MAXSIM: tuple[Heat, ...] = (
    *heats("maxsim", A, B, C, REAL),
    *heats("training", D, D_LONG),
    Heat("maxsim", E, "first"),
    *heats("codecs", G),
)


def small(heat: Heat) -> Heat:
    """The same over few short documents."""
    made = (
        replace(
            each,  # type: ignore[call-arg]
            n_docs=min(60, each.n_docs),
            n_queries=min(4, each.n_queries),
            k=min(5, each.k),
            lengths=SHORT,
        )
        for each in heat.workloads
    )
    return heat._replace(workloads=tuple(made))


QUICK: tuple[Heat, ...] = tuple(small(heat) for heat in MAXSIM if heat.corpus.data == "clustered")
"""Whether everything works, not how fast."""
