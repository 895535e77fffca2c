"""A life of an index: changes, searches, saving and loading, each compared with a plain model of what it holds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import pyengine as pe
from pyengine.indexes.stores import STORES
from pyengine.specification import reference
from pyengine.types import I64
from tests.fuzz import files, values
from tests.fuzz.searches import Corpus, Tally, Wrong, draw, function_of
from tests.fuzz.values import HOSTILE, Argument, Rng, bad, pick

EXACT_STORES = [name for name in ("float32", "int8") if name in STORES]  # the vectors themselves are the truth


class Life:
    """An index and what it must hold: vectors by id."""

    def __init__(self, rng: Rng, tally: Tally) -> None:
        self.rng, self.tally = rng, tally
        self.dim = int(pick(rng, (1, 3, 16, 65, 130)))
        self.metric: str = pick(rng, reference.METRICS)
        self.index: Any = pe.DenseIndex(self.dim, self.metric, pick(rng, EXACT_STORES))
        self.held: dict[int, Any] = {}
        self.largest = -1

    def known(self) -> I64:
        """The ids that the index must hold, in the order that it gives."""
        ids: I64 = np.array(self.index.ids)
        if sorted(ids.tolist()) != sorted(self.held) or len(self.index) != len(ids):
            raise Wrong(f"holds ids {ids}, length {len(self.index)}; must hold {sorted(self.held)}")
        return ids

    def good(self, n: int) -> Argument:
        """So many that may be added."""
        return values.vectors(self.rng, n, self.dim)

    def spoiled(self, n: int) -> Argument:
        return values.spoiled(self.rng, n, self.dim)

    def add(self) -> None:
        rng, known = self.rng, np.array(list(self.held), np.int64)
        n = int(pick(rng, (0, 1, 2, 40, 150)))
        rows = self.spoiled(n) if rng.random() < 2 * HOSTILE else self.good(n)
        ids = Argument(None, self.largest + 1 + np.arange(n)) if self.largest < 1 << 62 else values.ids(rng, n, known)
        if rng.random() < 0.5:
            ids = values.no_ids(rng, n, known) if n and rng.random() < 3 * HOSTILE else values.ids(rng, n, known)
        good = rows.good and ids.good
        self.tally.call("add", good, lambda: self.index.add(rows.value, ids.value))
        if good and n:
            self.held |= dict(zip(ids.truth.tolist(), rows.truth))
            self.largest = max(self.largest, int(ids.truth.max()))

    def remove(self) -> None:
        rng, known = self.rng, np.array(list(self.held), np.int64)
        gone = rng.permutation(known)[: int(rng.integers(0, len(known) + 1))]
        ids = Argument(values.form(rng, gone), gone)
        if rng.random() < 3 * HOSTILE:
            unknown = 12345 if 12345 not in self.held else -1
            ids = bad(
                pick(rng, (np.append(gone, unknown), [-1], ["1"], gone + 0.5 if len(gone) else [0.5], object(), None))
            )
        self.tally.call("remove", ids.good, lambda: self.index.remove(ids.value))
        if ids.good:
            self.held = {each: row for each, row in self.held.items() if each not in set(gone.tolist())}

    def search(self) -> None:
        ids = self.known()
        rows = np.array([self.held[each] for each in ids.tolist()], np.float32).reshape(-1, self.dim)
        search = draw(self.rng, Corpus(rows, ids, self.metric), self.index)
        function = function_of(self.index, search.name)
        found = self.tally.call(search.name, search.good, lambda: search.of(function))
        if found is not None:
            search.check(found, repr(self.index))

    def queries(self) -> Any:
        """Three that the index must take."""
        return np.ones((3, self.dim), np.float32)

    def compact(self) -> None:
        self.tally.call("compact", True, lambda: self.index.compact())

    def save_and_load(self) -> None:
        """Load what was saved, and what was saved and then altered."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self.tally.call("save", True, lambda: self.index.save(path))
            mapped = bool(self.rng.random() < 0.5)
            loaded = self.tally.call("load", True, lambda: pe.load(path, mmap=mapped))
            other = shutil.copytree(path, Path(folder) / "altered")  # the mapped files stay as they are
            files.alter(self.rng, other)
            altered = self.tally.call("load altered", None, lambda: pe.load(other, mmap=mapped))
            if altered is not None:
                self.survive(altered, same=not mapped)
            self.index = loaded
            self.search()

    def survive(self, altered: Any, same: bool) -> None:
        """An altered index that was loaded is what was saved, where all of it was read (``same``); where files are only
        mapped their contents are not verified, and it may only not crash."""
        ours, self.index = self.index, altered
        try:
            if same:
                self.search()
            else:
                self.tally.call("search altered", None, lambda: altered.search(self.queries(), 5))
        finally:
            self.index = ours


def live(life: Life) -> None:
    """A few steps in the life of an index."""
    rng = life.rng
    steps = [life.add, life.add, life.remove, life.search, life.search, life.compact, life.save_and_load]
    life.add()
    for _ in range(int(rng.integers(2, 7))):
        pick(rng, steps)()
    life.search()
