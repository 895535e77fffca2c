"""What a search would do and why: the backend, its plan, and what was rejected."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pyengine import checks
from pyengine.backends import registry
from pyengine.problems.problem import Problem


class Plan(NamedTuple):
    """The plan of one search. ``facts`` are the backend's own (ISA, tiles, bytes, operations), ``rejected`` says for
    everything that was not chosen why not. Printing it gives a readable page."""

    problem: str
    backend: str
    facts: dict[str, str]
    rejected: dict[str, str]

    def __str__(self) -> str:
        lines = [self.problem, f"backend: {self.backend}"]
        lines += [f"  {name}: {value}" for name, value in self.facts.items()]
        lines += ["rejected:", *(f"  {name}: {reason}" for name, reason in self.rejected.items())]
        return "\n".join(lines)


def explain(problem: Problem, backend: str, precision: str = "exact") -> Plan:
    """The plan of this search with that backend, or with the one that "auto" takes; errors as for the search."""
    chosen = registry.choose(backend, problem)
    codes, docs = problem.docs.codes, problem.docs
    if checks.choice(precision, "precision", checks.PRECISIONS) == "fast":
        problem = replace(problem, docs=docs.trusting_loose_codes(), sure=True)
    else:
        problem = replace(problem, docs=docs.without_loose_codes())
    asked = problem.asking(problem.places())
    facts, tiles = chosen.describe(asked)
    if problem.filters is not None:
        places = f"top {asked.k} proposed at first, so that {problem.k} may be left"
        facts = {"filters": f"{', '.join(problem.filters.describe())}: {places}"} | facts
    rejected = {
        f"backend {name}": "; ".join(reasons) or f"it can run this too, but {chosen.name!r} is {_preference(backend)}"
        for name, reasons in registry.reasons(problem).items()
        if name != chosen.name
    }
    if codes is not None and problem.docs.codes is None:
        name = f"codes of store {problem.docs.store!r}"
        rejected[name] = (
            f"{codes.planes}-bit bounds are too loose to prune; originals are scanned (precision='fast' ranks by codes)"
        )
    return Plan(problem.describe(), chosen.name, facts, rejected | tiles)


def _preference(backend: str) -> str:
    return "the first that can" if backend == "auto" else "what was asked for"
