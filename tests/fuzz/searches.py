"""Searches of a known corpus: what is asked, whether it must be answered, and what the answer must be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyengine as pe
from pyengine.specification import reference
from pyengine.types import F32, I64
from tests.fuzz import filters, values
from tests.fuzz.values import HOSTILE, Argument, Rng, bad, pick

REFUSALS = (ValueError, TypeError, RuntimeError, OSError)  # FileNotFoundError is an OSError


class Wrong(Exception):
    """What was asked came out otherwise than it must."""


@dataclass
class Tally:
    """How many calls were answered, and how many refused."""

    answered: int = 0
    refused: int = 0

    def call(self, what: str, good: bool | None, function: Callable[[], Any]) -> Any:
        """The answer, or None where the call was refused in one sentence. ``good`` says which it must be; None: either.
        Raises `Wrong` for the other, and for any other exception."""
        try:
            answer = function()
        except REFUSALS as error:
            message = str(error)
            if not message or "\n" in message or re.search(r"[.] [A-Z]", message):
                raise Wrong(f"{what}: not one sentence: {type(error).__name__}: {message!r}") from error
            if good:
                raise Wrong(f"{what}: refused a good call: {type(error).__name__}: {message}") from error
            self.refused += 1
            return None
        except BaseException as error:
            raise Wrong(f"{what}: raised {type(error).__name__}: {error}") from error
        if good is False:
            raise Wrong(f"{what}: answered a call that must be refused")
        self.answered += 1
        return answer


@dataclass
class Corpus:
    """What an index, or the documents of `topk`, hold."""

    rows: F32
    ids: I64
    metric: str

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])


@dataclass
class Search:
    """One of the functions that search, its arguments, and their truths."""

    name: str  # in pyengine and in reference
    corpus: Corpus
    queries: Argument
    asked: Argument  # how many, which threshold, which targets
    extra: dict[str, Argument]

    @property
    def good(self) -> bool:
        return all(each.good for each in (self.queries, self.asked, *self.extra.values()))

    def of(self, function: Callable[..., Any], *docs: Any, **options: Any) -> Any:
        given = {name: argument.value for name, argument in self.extra.items()}
        return function(self.queries.value, *docs, self.asked.value, **options, **given)

    def specified(self) -> Any:
        """The answer, by `pyengine.specification.reference`."""
        function = getattr(reference, self.name)
        known = (reference.topk, reference.first_k, function)
        names = {name for each in known for name in inspect.signature(each).parameters}
        options = {name: argument.truth for name, argument in self.extra.items() if name in names}
        corpus = self.corpus
        return function(self.queries.truth, corpus.rows, self.asked.truth, corpus.metric, ids=corpus.ids, **options)

    def check(self, found: Any, what: str) -> None:
        if "precision" in self.extra and self.extra["precision"].truth == "fast":
            if found.scores.shape != (len(self.queries.truth), self.asked.truth) or found.certified.any():
                raise Wrong(f"{what}: a fast answer of shape {found.scores.shape}, certified {found.certified}")
            return
        want = self.specified()
        if bits(found) != bits(want):
            raise Wrong(f"{what}: {self.name} of {self.asked.truth} with {list(self.extra)} is {found}; must be {want}")


def bits(answer: Any) -> list[tuple[Any, ...]]:
    parts: tuple[NDArray[Any], ...] = answer if isinstance(answer, tuple) else (answer,)
    return [(part.dtype, part.shape, part.tobytes()) for part in parts]


Draw = Callable[[Rng, Corpus, int], Argument]  # for so many queries

ASKED: dict[str, tuple[Draw, Draw]] = {  # a good one, and a bad one
    "topk": (
        lambda rng, corpus, n: values.number(rng, 1, int(pick(rng, (3, 20, len(corpus.rows) + 2, 5000)))),
        lambda rng, corpus, n: values.no_number(rng),
    ),
    "range_search": (
        lambda rng, corpus, n: filters.threshold(rng, n),
        lambda rng, corpus, n: filters.no_threshold(rng, n),
    ),
    "rank_of": (
        lambda rng, corpus, n: filters.targets(rng, corpus.ids, n),
        lambda rng, corpus, n: filters.no_targets(rng, corpus.ids, n),
    ),
}
EXTRA: dict[str, tuple[Draw, Draw]] = {
    "mask": (
        lambda rng, corpus, n: values.mask(rng, n, len(corpus.rows)),
        lambda rng, corpus, n: values.no_mask(rng, n, len(corpus.rows)),
    ),
    "bias": (
        lambda rng, corpus, n: values.bias(rng, len(corpus.rows)),
        lambda rng, corpus, n: values.no_bias(rng, len(corpus.rows)),
    ),
    "dims": (
        lambda rng, corpus, n: values.number(rng, 1, corpus.dim),
        lambda rng, corpus, n: values.no_number(rng, but=(None,)),
    ),
    "num_threads": (
        lambda rng, corpus, n: values.number(rng, 1, 9),
        lambda rng, corpus, n: values.no_number(rng, but=(None,)),
    ),
    "precision": (
        lambda rng, corpus, n: Argument(*2 * [pick(rng, ("exact", "exact", "fast"))]),
        lambda rng, corpus, n: bad(pick(rng, ("", "EXACT", None, 1, b"exact", ["exact"], np.array(["exact"])))),
    ),
    "backend": (
        lambda rng, corpus, n: Argument(*2 * [pick(rng, ("auto", "cpu", "numpy"))]),
        lambda rng, corpus, n: bad(pick(rng, ("", "gpu", 1, b"cpu", ["cpu"], object()))),
    ),
    "allow": (
        lambda rng, corpus, n: filters.some_ids(rng, corpus.ids),
        lambda rng, corpus, n: filters.no_ids(rng, corpus.ids, unknown=True),
    ),
    "deny": (
        lambda rng, corpus, n: filters.some_ids(rng, corpus.ids, unknown=True),
        lambda rng, corpus, n: filters.no_ids(rng, corpus.ids),
    ),
    "exclude": (
        lambda rng, corpus, n: filters.exclude(rng, corpus.ids, n),
        lambda rng, corpus, n: filters.no_exclude(rng, corpus.ids, n),
    ),
    "groups": (
        lambda rng, corpus, n: filters.groups(rng, len(corpus.rows)),
        lambda rng, corpus, n: filters.no_groups(rng, len(corpus.rows)),
    ),
    "per_group": (lambda rng, corpus, n: values.number(rng, 1, 5), lambda rng, corpus, n: values.no_number(rng)),
    "after": (
        lambda rng, corpus, n: filters.after(rng, corpus.ids, n),
        lambda rng, corpus, n: filters.no_after(rng, n),
    ),
    "threshold": (
        lambda rng, corpus, n: filters.threshold(rng, n),
        lambda rng, corpus, n: filters.no_threshold(rng, n, but=(None,)),
    ),
    "rescore": (
        lambda rng, corpus, n: values.number(rng, 1, 9),
        lambda rng, corpus, n: values.no_number(rng, but=(None,)),
    ),
}
NEEDS = {"per_group": ("groups", None), "rescore": ("precision", "fast")}  # means nothing without


def draw(rng: Rng, corpus: Corpus, where: Any) -> Search:
    """One of the searches that ``where``, pyengine or an index, offers."""
    name = pick(rng, [each for each in ("topk", "topk", *ASKED) if function_of(where, each)])
    n_queries = int(pick(rng, (0, 1, 2, 5, 33)))
    queries = values.vectors(rng, n_queries, corpus.dim)
    if n_queries and len(corpus.rows) and rng.random() < 0.2:  # some that are documents
        truth = corpus.rows[rng.integers(0, len(corpus.rows), n_queries)]
        queries = Argument(values.form(rng, truth), truth)
    if rng.random() < HOSTILE:
        queries = values.spoiled(rng, n_queries, corpus.dim)
    asked = ASKED[name][rng.random() < HOSTILE](rng, corpus, n_queries)
    extra: dict[str, Argument] = {}
    for each in inspect.signature(function_of(where, name)).parameters:
        if each in EXTRA and each not in ("threshold" * (name == "range_search"),) and rng.random() < 0.2:
            extra[each] = EXTRA[each][rng.random() < HOSTILE](rng, corpus, n_queries)
    for each, (other, value) in NEEDS.items():
        if each in extra and (other not in extra or value not in (None, extra[other].truth)):
            del extra[each]
    return Search(name, corpus, queries, asked, extra)


def function_of(where: Any, name: str) -> Any:
    return getattr(where, "search" if where is not pe and name == "topk" else name, None)


def search_once(rng: Rng, tally: Tally) -> None:
    """A search of drawn documents."""
    n, dim = int(pick(rng, (0, 1, 7, 100, 300))), int(pick(rng, (1, 3, 16, 65, 130)))
    n = 9000 if rng.random() < 0.03 else n  # enough for the scan to sample
    docs = values.vectors(rng, n, dim)
    search = draw(rng, Corpus(docs.truth, np.arange(n), pick(rng, reference.METRICS)), pe)
    if rng.random() < HOSTILE:
        docs = values.spoiled(rng, n, dim)
    metric = pick(rng, (None, "COSINE", "", 0, ["l2"])) if rng.random() < HOSTILE / 2 else search.corpus.metric
    good = search.good and docs.good and metric == search.corpus.metric
    found = tally.call(search.name, good, lambda: search.of(function_of(pe, search.name), docs.value, metric=metric))
    if found is not None:
        search.check(found, search.corpus.metric)
