"""The C++ kernels: exact integer products of int8 codes, with a bound on what the codes leave out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.backends.base import Backend, MaxSimBackend
from pyengine.backends.cpu import centring, machine
from pyengine.inputs.rows import Rows
from pyengine.kernels.plan import DensePlan, MaxSimPlan, plan_dense, plan_maxsim
from pyengine.problems.problem import ALL, Codes, DenseProblem, Documents
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact, exact_maxsim
from pyengine.types import I64, Attempt, Candidates

MANY_TOKENS = 10_000_000  # of documents: at 128 dimensions, one query reads their codes in about 0.1 s
CODED_SHARE = 4  # bytes of a float32, as which queries are held
SMALL = 1 << 18  # products of two floats: to score everything costs no more than to scan, refine and certify
LEAST_DIMS = 32  # a pair costs as much as one of these


class CpuBackend(Backend):
    """Unit vectors as int8 codes: q/|q| ~ q^ (two parts), d/|d| ~ d^ with |d/|d| - d^| <= r stored per document.

    A score then differs from the product of the codes by at most |q - q^| (1 + r) + |q| r in units of |q||d|
    (Cauchy-Schwarz; DESIGN.md, "Bounds"), r being about 0.007 for embeddings. With two parts the query's share is about
    1e-4, which is how far, beside r, the estimates of stored codes are off that ``precision="fast"`` returns. Documents
    without codes are coded tile by tile while they are scanned, and meet the first part only, whose share is about r;
    many queries have them coded once, before.
    """

    name = "cpu"
    presumes = True
    few = 256  # documents, or k: to refine so many costs no more than a scan

    def missing(self) -> str | None:
        return machine.missing()

    def refusals(self, problem: DenseProblem) -> list[str]:
        return super().refusals(problem) + machine.beyond(problem.dims, len(problem.docs))

    def checks_finite(self, problem: DenseProblem) -> bool:
        return problem.n_queries > 0 and problem.dims == problem.docs.dim  # then every float is read

    def readied(self, problem: DenseProblem) -> DenseProblem:
        """With codes and norms of the documents, where each block of queries would code them again."""
        if not self._codes_once(problem):
            return problem
        docs, threads = problem.docs, problem.num_threads
        codes = Codes(*exact.quantize(docs.rows, threads))
        norms = exact.norms(docs.rows, docs.dim, threads) if docs.norms is None else docs.norms
        return replace(problem, docs=replace(docs, codes=codes, norms=norms, checked=True))

    def _codes_once(self, problem: DenseProblem) -> bool:
        docs = problem.docs
        plain = docs.codes is None and not isinstance(docs.rows, Rows) and problem.dims == docs.dim
        small = len(docs) <= CODED_SHARE * problem.n_queries  # the codes take no more memory than the queries
        if not (plain and small) or machine.listed_rows(problem) is not None or centring.centre(problem) is not None:
            return False
        return problem.n_queries > self.plan(problem, self.first_width(problem)).query_block

    def first_width(self, problem: DenseProblem) -> int:
        # Many documents near a ceiling are kept until their bounds are sharpened.
        return width_for(problem.k) if problem.ceiling is None else 8 * problem.k + 16384

    def plan(self, problem: DenseProblem, width: int, n_docs: int | None = None) -> DensePlan:
        """The tiles and limits of the scan of all documents, or of ``n_docs`` of them."""
        docs = problem.docs
        scanned = row_bytes(_scanned(docs)) * problem.dims // docs.dim
        n_docs = len(problem.docs) if n_docs is None else n_docs
        return plan_dense(
            problem.n_queries, n_docs, problem.dims, problem.k, width, scanned, problem.num_threads, problem.sure
        )

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        kernels = exact.native()
        assert kernels is not None
        listed = machine.listed_rows(problem)
        if listed is not None and len(listed) <= max(self.few, problem.k):
            return _everything(problem, listed)
        problem, shift = centring.shifted(problem)
        launch = self.plan(problem, width, None if listed is None else len(listed)).launch()
        hints = {"floor": problem.floor, "ceiling": problem.ceiling, "listed": listed}
        corpus = exact.corpus(problem, scan=True)
        *found, _ = kernels.propose(corpus, problem.queries, problem.k, **launch, **hints)
        return centring.restored(Candidates(*found), shift)

    def attempt(self, problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
        if problem.filters is not None or not _small(problem):
            return None
        if not problem.docs.checked:
            problem.docs.check_finite()
        scores, ids, _ = exact.scan(problem)
        return Attempt(scores, ids, np.full(problem.n_queries, -np.inf))

    def within(self, problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
        """One pass of the scan, whose thresholds are the floors and never rise."""
        kernels = exact.native()
        assert kernels is not None
        problem, shift = centring.shifted(problem)
        launch = self.plan(replace(problem, k=1), self.first_width(problem)).launch() | {"sample": 0, "width": 4 * ALL}
        corpus = exact.corpus(problem, scan=True)
        limits = {"floor": problem.floor, "ceiling": problem.ceiling, "listed": machine.listed_rows(problem)}
        *found, above = kernels.propose(corpus, problem.queries, ALL, **launch, **limits)
        yield np.arange(problem.n_queries), centring.restored(Candidates(*found), shift), above

    def describe(self, problem: DenseProblem) -> tuple[dict[str, str], dict[str, str]]:
        if problem.filters is None and _small(problem):
            facts, rejected = super().describe(problem)
            return facts, rejected | {"int8 codes": "to score so few documents costs no more than to scan them"}
        listed = machine.listed_rows(problem)
        plan = self.plan(problem, self.first_width(problem), None if listed is None else len(listed))
        threads = plan.num_threads
        once = self._codes_once(problem)
        coded = "" if problem.docs.codes else f", coded as int8 {'before' if once else 'while'} it is scanned"
        read = problem.docs.rows.nbytes + plan.bytes_read // CODED_SHARE if once else plan.bytes_read
        isa, rejected = machine.isas()
        facts = {
            "isa": isa,
            "store": problem.docs.store + coded,
            "tile": f"{plan.tile} documents by {plan.query_form(problem.n_queries)}",
            "queries": f"{min(plan.query_block, problem.n_queries)} per pass, {threads} thread{'s'[: threads > 1]}",
            "sample": f"{plan.sample} documents for a first threshold" if plan.sample else "none",
            "filter": self._filter(problem, listed),
            "candidates": f"at most {plan.width} per query before widening",
            "reads": f"{read:,} bytes, and {row_bytes(problem.docs.rows):,} more per candidate refined",
            "computes": f"{plan.operations:,} int8 operations",
        }
        if centring.centre(problem) is not None:
            facts["centre"] = "documents lie far from the origin: coded relative to their mean, at the first search"
        return facts, rejected | plan.rejected

    def _filter(self, problem: DenseProblem, listed: NDArray[np.int32] | None) -> str:
        if problem.mask is None:
            return "none"
        if listed is None:
            return "by a bit, for what passes the threshold"
        refined = len(listed) <= max(self.few, problem.k)
        return f"{len(listed)} documents, " + ("all refined: no scan" if refined else "gathered, and no others read")


def width_for(k: int) -> int:
    """`first_width` without a ceiling."""
    return 8 * k + 4096


def scored_at_once(n_queries: int, n_docs: int, dims: int) -> bool:
    """Whether every document is scored at once."""
    return 0 < n_queries * n_docs * max(dims, LEAST_DIMS) <= SMALL


def _small(problem: DenseProblem) -> bool:
    return not problem.sure and scored_at_once(problem.n_queries, len(problem.docs), problem.dims)


class CpuMaxSim(MaxSimBackend):
    """int8 codes of unit tokens: a product of tokens is off by at most e (1 + r) + r, in units of |q||d|, with e and r
    what rounding leaves of the query's token and of the document's. So is a maximum, and a score by the sum of that
    (DESIGN.md, "Bounds"), which is how far the estimates of ``precision="fast"`` are off.

    ``softmax`` is at most ``mean``. The documents that are best by that give a k-th score, and a second scan lists what
    can reach it; ``precision="fast"`` scores the k best by ``mean``. The others are scored by the specification
    throughout: ``symmetric`` has no scan yet, a pooled vector may lie nearer to the query than all of its frames, and
    "aligned" takes one product of each token, which is soon made.
    """

    name = "cpu"
    presumes = True
    scanned = ("sum", "mean")

    def missing(self) -> str | None:
        return machine.missing()

    def refusals(self, problem: MaxSimProblem) -> list[str]:
        return super().refusals(problem) + machine.beyond(problem.docs.dim, len(problem.docs))

    def checks_finite(self, problem: MaxSimProblem) -> bool:
        """Where every token is read: of a mask for all queries, no others are."""
        everything = problem.mask is None or len(problem.mask) != 1
        return everything and problem.reduce in self.scanned and len(problem.queries.values) > 0

    def readied(self, problem: MaxSimProblem) -> MaxSimProblem:
        return (
            replace(problem, sure=True) if problem.reduce == "softmax" else problem
        )  # its second scan presumes nothing

    def first_width(self, problem: MaxSimProblem) -> int:
        if problem.reduce not in self.scanned:
            return super().first_width(problem)
        return 8 * problem.k + (4096 if problem.ceiling is None else 16384)

    def plan(self, problem: MaxSimProblem, width: int) -> MaxSimPlan:
        """The tiles and limits of the scan."""
        docs, tokens = problem.docs, problem.docs.tokens
        scanned = row_bytes(_scanned(tokens))
        return plan_maxsim(
            len(problem.queries.values), len(docs), len(tokens), docs.dim, problem.k, width, scanned,
            problem.num_threads, problem.sure,
        )  # fmt: skip

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        if problem.reduce in self.scanned:
            return self._scanned(problem, self.plan(problem, width))
        upper = problem.upper()
        if upper.reduce not in self.scanned:
            return super().propose(problem, width)
        likely = replace(upper, k=max(width, problem.k))
        listed = self._scanned(likely, self.plan(likely, self.first_width(likely)))
        scores, _ = self.select(problem, listed, self.refine(problem, listed))
        with np.errstate(over="ignore"):
            below = np.nextafter(scores[:, -1], np.float32(-np.inf)).astype(np.float64)
        floor = below if problem.floor is None else np.maximum(below, problem.floor)
        everything = replace(upper, k=ALL, floor=floor)
        return self._scanned(everything, replace(self.plan(likely, 4 * ALL), sample=0))

    def _scanned(self, problem: MaxSimProblem, plan: MaxSimPlan) -> Candidates:
        kernels = exact.native()
        assert kernels is not None
        other = ("doc_weights", "temperature")
        scoring = {name: each for name, each in problem.scoring().items() if name not in other}
        *found, _ = kernels.maxsim_propose(
            exact_maxsim.query_tokens(problem, kernels), exact_maxsim.corpus(problem, kernels, scan=True), problem.k,
            mask=problem.mask, floor=problem.floor, ceiling=problem.ceiling, **scoring,
            **plan.launch(),
        )  # fmt: skip
        return Candidates(*found)

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        isa, rejected = machine.isas()
        upper = problem.upper()
        if upper.reduce not in self.scanned:
            facts, _ = super().describe(problem)
            rejected["int8 codes"] = f"they bound {' and '.join(self.scanned)}, and {problem.reduce} is asked for"
            return {"isa": isa} | facts, rejected
        bounded = {} if upper is problem else {"bounded by": f"{upper.reduce}: one scan for a k-th score, one by it"}
        problem = upper
        plan, codes = self.plan(problem, self.first_width(problem)), problem.docs.codes
        facts = {
            "isa": isa,
            "store": problem.docs.store + ("" if isinstance(codes, Codes) else _coded(_scanned(problem.docs.tokens))),
            "tile": f"{plan.tile} document tokens",
            "queries": f"up to {plan.query_tokens} tokens per pass, {plan.num_threads} thread"
            f"{'s'[: plan.num_threads > 1]}",
            "sample": f"{plan.sample} documents for a first threshold" if plan.sample else "none",
            "candidates": f"at most {plan.width} per query before widening",
            "reads": f"{plan.bytes_read:,} bytes, and {row_bytes(problem.docs.tokens.rows):,} more per token refined",
            "computes": f"{plan.operations:,} int8 operations",
        }
        tokens = len(problem.docs.tokens)
        if tokens < MANY_TOKENS:
            rejected["candidate stage"] = f"{tokens:,} tokens are soon scanned: it pays from about {MANY_TOKENS:,} on"
        else:
            facts["candidate stage"] = "would pay: rerank what a dense or sparse index finds (then not certified)"
        return facts | bounded, rejected | plan.rejected


def row_bytes(rows: Any) -> int:
    """Bytes from row to row of an array [N, ...] or of `Rows`."""
    stored = rows.data if isinstance(rows, Rows) else rows
    return int(stored.itemsize * stored.shape[1])


def _coded(rows: Any) -> str:
    """How documents without int8 codes are scanned."""
    coded = "coded as int8 while it is scanned"
    if isinstance(rows, Rows) and rows.kind == "residual":
        return f", {coded}, or for a few query tokens by looked-up products with its centroids"
    return f", {coded}"


def _scanned(docs: Documents) -> Any:
    """What is read of the documents: their codes, where they have any."""
    return docs.codes.codes if isinstance(docs.codes, Codes) else docs.rows if docs.codes is None else docs.codes


def _everything(problem: DenseProblem, rows: NDArray[np.int32]) -> Candidates:
    """These rows for every query, and nothing dropped."""
    offsets = len(rows) * np.arange(problem.n_queries + 1, dtype=np.int64)
    listed = Candidates(
        np.tile(rows.astype(np.int64), problem.n_queries), offsets, np.empty(0, np.float32), np.empty(0)
    )
    dropped = np.full(problem.n_queries, -np.inf)
    return listed._replace(estimates=exact.refine(problem, listed), dropped=dropped)
