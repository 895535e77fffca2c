"""A cell: one way to search a collection. What its settings are, which go together, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pyengine.backends import registry
from pyengine.fuse import METHODS, NORMALIZATIONS
from pyengine.indexes import codecs, stores

FAMILIES = ("dense", "maxsim", "sparse", "hybrid")
STORES = {
    "dense": tuple(stores.STORES),
    "maxsim": tuple(codecs.CODECS),
    "sparse": ("float32", "float16", "uint8"),
    "hybrid": tuple(stores.STORES),
}
PLAIN = ("float32", "float16", "bfloat16")  # stores that keep no codes
STAGES = {  # candidates -> the settings that they take; with a ``depth`` above 0 they are scored again
    "none": (),
    "ivf": ("lists", "probes"),
    "hnsw": ("links", "ef"),
    "pq": ("code_bytes", "depth"),
    "hamming": ("bits", "depth"),
    "projection": ("project", "depth"),
    "codes": ("depth",),
    "dense": ("depth",),
    "sparse": ("depth",),
    "run": ("depth",),
}
CANDIDATES = {
    "dense": ("none", "ivf", "hnsw", "pq", "hamming", "projection", "codes", "sparse", "run"),
    "maxsim": ("none", "codes", "dense", "sparse", "run"),
    "sparse": ("none",),
    "hybrid": ("none",),
}
SETTINGS = {  # family -> the settings that it takes beside those of its candidates
    "dense": ("store", "originals", "dims"),
    "maxsim": ("store", "originals", "pool"),
    "sparse": ("store", "originals"),
    "hybrid": ("store", "originals", "fusion", "normalize", "weight", "depth"),
}
COMMON = ("family", "candidates", "backend", "threads", "k", "against")


class Integer(NamedTuple):
    """A whole number, ``least`` or more."""

    least: int = 1

    def flaw(self, value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= self.least
        return None if fits else f"a whole number, {self.least} or more"


class Real(NamedTuple):
    """A number between two."""

    least: float
    most: float

    def flaw(self, value: Any) -> str | None:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and self.least <= value <= self.most
        return None if fits else f"a number from {self.least:g} to {self.most:g}"


class Choice(NamedTuple):
    """One of some words."""

    words: tuple[str, ...]

    def flaw(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value in self.words else f"one of {', '.join(map(repr, self.words))}"


class Word(NamedTuple):
    """Any text."""

    def flaw(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value else "a text"


KINDS: dict[str, Integer | Real | Choice | Word] = {
    "family": Choice(FAMILIES),
    "store": Choice(tuple(dict.fromkeys(store for each in STORES.values() for store in each))),
    "originals": Choice(("ram", "disk", "none")),
    "dims": Integer(),
    "pool": Real(1, 1000),
    "candidates": Choice(tuple(STAGES)),
    "depth": Integer(0),
    "lists": Integer(),
    "probes": Integer(),
    "links": Integer(2),
    "ef": Integer(),
    "code_bytes": Integer(),
    "bits": Integer(8),
    "project": Integer(),
    "fusion": Choice(METHODS),
    "normalize": Choice(NORMALIZATIONS),
    "weight": Real(0, 1),
    "backend": Choice(("auto", *registry.names())),
    "threads": Integer(),
    "k": Integer(),
    "against": Word(),
}


@dataclass(frozen=True)
class Cell:
    """``name`` is its own in the grid. Every other field is a setting, and a column of the results; those that its
    family and its candidates do not take are None.

    ``store`` is how vectors, tokens or weights are kept, ``originals`` whether what codes were made from is kept too.
    ``dims`` is a prefix of the vectors, ``pool`` how many tokens become one. ``candidates`` propose, and ``depth`` of
    them are scored again (0: they are the answer): faiss's "ivf" (``lists``, of which ``probes`` are read), "hnsw"
    (``links`` a node, a search list of ``ef``), "pq" (``code_bytes`` a vector), "hamming" (``bits`` a vector, the signs
    of a random rotation); "projection", the ``project`` directions in which the documents have most energy, kept as
    ``store``; "codes", the store's own; "dense" or "sparse", the k best by the other vectors; "run", a file's. Of
    "hybrid" the ``depth`` best of either ranking are fused; ``weight`` is that of the dense one.
    ``against`` names the cell that this one is compared with."""

    name: str
    family: str
    candidates: str = "none"
    store: str = "float32"
    originals: str | None = None
    dims: int | None = None
    pool: float | None = None
    lists: int | None = None
    probes: int | None = None
    links: int | None = None
    ef: int | None = None
    code_bytes: int | None = None
    bits: int | None = None
    project: int | None = None
    depth: int | None = None
    fusion: str | None = None
    normalize: str | None = None
    weight: float | None = None
    backend: str = "auto"
    threads: int = 1
    k: int = 10
    against: str | None = None


DEFAULTS: dict[str, Any] = {
    "lists": 64, "probes": 8, "links": 32, "ef": 64, "code_bytes": 48, "bits": 768, "project": 96, "depth": 100,
    "fusion": "rrf", "normalize": "minmax", "weight": 0.5, "pool": 1,
}  # fmt: skip


def made(name: str, given: dict[str, Any]) -> Cell:
    """The cell of these settings, with the defaults of those that are missing. ValueError in words that follow the name
    of a file and a cell: which setting, and what it must be."""
    for key, value in given.items():
        if key not in KINDS:
            raise ValueError(f"{key} is no setting; there are {', '.join(KINDS)}")
        wanted = KINDS[key].flaw(value)
        if wanted is not None:
            raise ValueError(f"{key} must be {wanted}; got {value!r}")
    if "family" not in given:
        raise ValueError(f"family must be given, {KINDS['family'].flaw(None)}")
    family, stage = given["family"], given.get("candidates", "none")
    _fitting("candidates", stage, CANDIDATES[family], family)
    _fitting("store", given.get("store", "float32"), STORES[family], family)
    taken = (*SETTINGS[family], *STAGES[stage])
    stray = next((key for key in given if key not in (*COMMON, *taken)), None)
    if stray is not None:
        raise ValueError(f"{stray} must come with another family or other candidates than {family!r} and {stage!r}")
    settings = {key: DEFAULTS[key] for key in taken if key in DEFAULTS} | given
    return Cell(name, **_with_originals(settings))


def _with_originals(settings: dict[str, Any]) -> dict[str, Any]:
    """Codes that propose need what they were made from, and so does int8 by default; bit codes are kept alone."""
    store, needed = settings.get("store", "float32"), settings.get("candidates") == "codes"
    if settings["family"] == "sparse" or store in PLAIN:
        if needed:
            raise ValueError(f"store must be one of codes for candidates 'codes'; got {store!r}")
        usual, allowed = "ram", ["ram", "disk"] if settings["family"] == "sparse" else ["ram"]
    else:
        usual = "ram" if needed or store == "int8" else "none"
        allowed = ["ram", "disk"] if needed else ["ram", "disk", "none"]
    originals = settings.get("originals", usual)
    if originals not in allowed:
        raise ValueError(f"originals must be {' or '.join(map(repr, allowed))} for store {store!r}; got {originals!r}")
    return settings | {"originals": originals}


def _fitting(key: str, value: str, allowed: tuple[str, ...], family: str) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(repr, allowed))} for family {family!r}; got {value!r}")
