"""Published claims, held against what was measured: a figure made of two cells' results, and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = Mapping[str, Any]
FIGURES: dict[str, tuple[Callable[[float, float], float], float]] = {  # -> of (cell, against); where nothing is gained
    "against / cell": (lambda cell, against: against / cell, 1.0),
    "cell / against": (lambda cell, against: cell / against, 1.0),
    "1 - cell / against": (lambda cell, against: 1 - cell / against, 0.0),
    "cell - against": (lambda cell, against: cell - against, 0.0),
    "cell": (lambda cell, _: cell, 0.0),
    "1 / cell": (lambda cell, _: 1 / cell, 1.0),
}
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


def _word(claim: Claim, figure: float, nothing: float) -> str:
    if claim.at_least is not None:
        return "holds" if figure >= claim.at_least else "weaker" if figure > nothing else "does not hold"
    assert claim.at_most is not None
    return "holds" if figure <= claim.at_most else "weaker" if figure < nothing else "does not hold"
