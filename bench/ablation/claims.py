"""Published claims, held against what was measured: a figure made of two cells' results, and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = Mapping[str, Any]
FIGURES: dict[str, tuple[Callable[[float, float], float], float | None]] = {  # -> of (cell, against); nothing gained
    "against / cell": (lambda cell, against: against / cell, 1.0),
    "cell / against": (lambda cell, against: cell / against, 1.0),
    "1 - cell / against": (lambda cell, against: 1 - cell / against, 0.0),
    "cell - against": (lambda cell, against: cell - against, 0.0),
    "cell": (lambda cell, _: cell, None),
    "1 / cell": (lambda cell, _: 1 / cell, 1.0),
}
UNCHANGED = {"_ratio": 1.0, "_change": 0.0}  # measures by the ends of their names
KEYS = ("name", "says", "source", "cell", "against", "measure", "figure", "at_least", "at_most", "note")


@dataclass(frozen=True)
class Claim:
    """``figure`` of the column ``measure`` in the rows of ``cell`` and ``against``, and what it is said to reach."""

    name: str
    says: str
    source: str
    cell: str
    measure: str
    figure: str
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @classmethod
    def of(cls, given: dict[str, Any], cells: Collection[str], where: str) -> Claim:
        """ValueError in one sentence that names the key."""
        where = f"{where} {given.get('name', '')!r}"
        stray = next((key for key in given if key not in KEYS), None)
        if stray is not None:
            raise ValueError(f"{where}: {stray} is no key of a claim; there are {', '.join(KEYS)}")
        for key in ("name", "says", "source", "cell", "measure", "figure"):
            if not isinstance(given.get(key), str):
                raise ValueError(f"{where}: {key} must be given, a text; got {given.get(key)!r}")
        if given["figure"] not in FIGURES:
            raise ValueError(f"{where}: figure must be one of {', '.join(map(repr, FIGURES))}; got {given['figure']!r}")
        for key in ("cell", "against"):
            if key in given and given[key] not in cells:
                raise ValueError(f"{where}: {key} must name a cell; got {given[key]!r}")
        if "against" in given["figure"] and "against" not in given:
            raise ValueError(f"{where}: against must name a cell for the figure {given['figure']!r}; got none")
        bounds = [given[key] for key in ("at_least", "at_most") if key in given]
        if len(bounds) != 1 or not isinstance(bounds[0], (int, float)):
            raise ValueError(f"{where}: at_least or at_most must be given, a number; got {bounds or 'neither'}")
        return cls(**given)


class Verdict(NamedTuple):
    """``word``: "holds", "weaker" (the same direction, less), "does not hold", or "not measured" and the ``reason``."""

    claim: Claim
    word: str
    figure: float | None = None
    reason: str = ""


def judge(claims: Collection[Claim], rows: Collection[Row]) -> list[Verdict]:
    """Each claim by the rows of its cells."""
    named = {row["cell"]: row for row in rows}
    return [_verdict(claim, named) for claim in claims]


def _verdict(claim: Claim, rows: Mapping[str, Row]) -> Verdict:
    values = []
    for name in (claim.cell, claim.against):
        row = rows.get(name) if name else None
        value = None if row is None else row[claim.measure]
        if name and value is None:
            why = "it has not run" if row is None else row["reason"] or f"it has no {claim.measure}"
            return Verdict(claim, "not measured", reason=f"{name}: {why}")
        values.append(0.0 if value is None else float(value))
    compute, nothing = FIGURES[claim.figure]
    try:
        figure = compute(values[0], values[1])
    except ZeroDivisionError:
        return Verdict(claim, "not measured", reason=f"{claim.measure} is 0")
    return Verdict(claim, _word(claim, figure, nothing), figure)


def _word(claim: Claim, figure: float, nothing: float | None) -> str:
    if nothing is None:  # a figure of one cell: what its measure is where nothing is gained
        nothing = next((value for ending, value in UNCHANGED.items() if claim.measure.endswith(ending)), None)
    sign = 1 if claim.at_most is None else -1
    bound = claim.at_least if claim.at_most is None else claim.at_most
    assert bound is not None
    if sign * figure >= sign * bound:
        return "holds"
    return "weaker" if nothing is not None and sign * figure > sign * nothing else "does not hold"
