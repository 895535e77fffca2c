"""Grids of cells, in TOML:

    title = "Stores"
    baseline = "float32"            # the cell that others are compared with, unless they name one by ``against``
    seconds = 1.0                   # for the calls of a cell, at either batch size
    seed = 7                        # of the tests of significance

    [settings]                      # of all cells that take them, unless they say otherwise
    threads = 1

    [[cells]]
    name = "float32"
    family = "dense"
    k = 10

    [[cells]]                       # a list: a cell for each of its values, times those of the other lists
    name = "codes"
    family = "dense"
    store = ["int8", "binary"]
    k = [10, 100]

`cells.Cell` has the settings. Cells of a list are called "codes-store=int8-k=10", and so on. `claims` reads
``[[claims]]``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

from bench.ablation import cells
from bench.ablation.cells import Cell
from bench.ablation.claims import Claim

GRIDS = Path(__file__).parent / "grids"
KEYS = ("title", "baseline", "seconds", "seed", "settings", "cells", "claims")
SEED = 20261122
SECONDS = 1.0
NAME = frozenset(ascii_letters + digits + "._-")  # a name is part of the name of a file


@dataclass(frozen=True)
class Grid:
    """``cells`` in the order in which they run, ``claims`` about them."""

    title: str
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...] = ()
    seconds: float = SECONDS
    seed: int = SEED

    def digest(self) -> str:
        """A hash of what is measured: comments, claims and the title may change."""
        text = json.dumps([[asdict(cell) for cell in self.cells], self.seconds, self.seed], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def cell(self, name: str) -> Cell:
        return next(cell for cell in self.cells if cell.name == name)


def load(path: Path) -> Grid:
    """The grid of a file; a name without a folder may be one of the bundled ones, "scifact" or "claims". ValueError in
    one sentence that names the file and the key."""
    bundled = GRIDS / f"{path.name.removesuffix('.toml')}.toml"
    if not path.is_file() and str(path) == path.name and bundled.is_file():
        path = bundled
    return parse(_toml(path), str(path))


def parse(given: dict[str, Any], where: str) -> Grid:
    """The grid of what a file says; ``where`` begins the sentences."""
    stray = next((key for key in given if key not in KEYS), None)
    if stray is not None:
        raise ValueError(f"{where}: {stray} is no key of a grid; there are {', '.join(KEYS)}")
    for key, kind in (("seed", cells.Integer(0)), ("seconds", cells.Real(0.001, 3600)), ("baseline", cells.Word())):
        wanted = kind.flaw(given[key]) if key in given else None
        if wanted is not None:
            raise ValueError(f"{where}: {key} must be {wanted}; got {given[key]!r}")
    tables = _tables(given, "cells", where)
    if not tables:
        raise ValueError(f"{where}: cells must be there, at least one [[cells]]; got none")
    settings = given.get("settings", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{where}: settings must be a table; got {settings!r}")
    found = [cell for at, table in enumerate(tables) for cell in _cells(settings, table, f"{where}, cells[{at}]")]
    found = _compared(found, given.get("baseline"), where)
    names = {cell.name for cell in found}
    said = enumerate(_tables(given, "claims", where))
    claims = [Claim.of(table, names, f"{where}, claims[{at}]") for at, table in said]
    title = str(given.get("title", Path(where).stem))
    return Grid(title, tuple(found), tuple(claims), float(given.get("seconds", SECONDS)), given.get("seed", SEED))


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise ImportError("grids need the package tomli on Python 3.10: pip install tomli") from None
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        known = ", ".join(sorted(each.stem for each in GRIDS.glob("*.toml")))
        raise FileNotFoundError(f"--grid must be a file, or one of {known}; {path} is missing") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be TOML: {error}") from None


def _tables(given: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    tables: Any = given.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ValueError(f"{where}: {key} must be tables, [[{key}]]; got {tables!r}")
    return list(tables)


def _cells(settings: dict[str, Any], table: dict[str, Any], where: str) -> list[Cell]:
    """The product of the lists of one table."""
    name = table.get("name")
    if not isinstance(name, str) or not name or set(name) - NAME:
        raise ValueError(f"{where}: name must be a word of letters, digits, '.', '_' and '-'; got {name!r}")
    where = f"{where} {name!r}"
    own = {key: value for key, value in table.items() if key != "name"}
    empty = next((key for key, value in own.items() if value == []), None)
    if empty is not None:
        raise ValueError(f"{where}: {empty} must be a value or a list of some; got an empty list")
    varied = [key for key, value in own.items() if isinstance(value, list)]
    found = []
    for values in product(*(own[key] for key in varied)):
        chosen = dict(zip(varied, values))
        full = "-".join([name, *(f"{key}={value}" for key, value in chosen.items())])
        try:
            found.append(cells.made(full, {**_taken(settings, own | chosen), **own, **chosen}))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return found


def _taken(settings: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Those settings of all that such a cell takes. Unknown ones are kept, and refused with the cell."""
    family, stage = own.get("family", settings.get("family")), own.get("candidates", settings.get("candidates", "none"))
    taken = (*cells.COMMON, *cells.SETTINGS.get(str(family), ()), *cells.STAGES.get(str(stage), ()))
    return {key: value for key, value in settings.items() if key in taken or key not in cells.KINDS}


def _compared(found: list[Cell], baseline: Any, where: str) -> list[Cell]:
    """With the baseline where they name none."""
    names = [cell.name for cell in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{where}: two cells are called {twice!r}")
    made = []
    for cell in found:
        against = cell.against or baseline
        if against is not None and against not in names:
            raise ValueError(f"{where}: {'against' if cell.against else 'baseline'} must name a cell; got {against!r}")
        made.append(Cell(**{**asdict(cell), "against": None if against == cell.name else against}))
    return made
