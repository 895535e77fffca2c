"""How an index keeps its vectors: a store grows by rows, drops rows, and gives backends an unchanging view
(`Documents`).

A store is a `Form`, which keeps the vectors and so defines them, and where that is not what is scanned, a `Coding` on
top of it. Each names its arrays; `make` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends.cpu.cpu_plain import PlainDocuments
from pyengine.indexes.arrays import DiskArray, GrowingArray
from pyengine.indexes.row_store import Arrays, RowStore
from pyengine.inputs.living import Living
from pyengine.inputs.rows import Rows, to_bfloat16
from pyengine.problems.problem import Codes, Documents
from pyengine.refining import exact
from pyengine.types import F32, F64, I64

FLOAT32_MAX = float(np.finfo(np.float32).max)
LEVELS = 127  # of an int8 code
DECODED = 2.0**-22  # residual of codes that are the vectors: their products and their scale are rounded to float32


def padded(dim: int) -> int:
    return -(-dim // 64) * 64


class Form:
    """The vectors as float32 [N, D] in the array ``rows``; subclasses keep them otherwise."""

    name = "float32"
    keeps_norms = True
    scanned_bits = 32  # a dimension, where nothing else is scanned

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def arrays(self) -> dict[str, GrowingArray]:
        return {"rows": GrowingArray(np.float32, (self.dim,))}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        """These rows as its arrays, beside what they `share`. What the form cannot hold may become inf."""
        return {"rows": rows}

    def rows(self, arrays: Arrays) -> F32 | Rows:
        """What those arrays mean: the vectors."""
        return arrays["rows"]

    def flaw(self, heads: Arrays) -> str | None:
        """What is wrong with arrays of the right lengths that somebody gives; None where they can be its own."""
        return None


class Float16(Form):
    """2 bytes a dimension: values rounded to float16, at most 65504."""

    name = "float16"

    def arrays(self) -> dict[str, GrowingArray]:
        return {"rows": GrowingArray(np.float16, (self.dim,))}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        return {"rows": rows.astype(np.float16)}

    def rows(self, arrays: Arrays) -> Rows:
        return Rows("float16", arrays["rows"], self.dim)


class BFloat16(Form):
    """2 bytes a dimension: values rounded to bfloat16, which has the range of float32."""

    name = "bfloat16"

    def arrays(self) -> dict[str, GrowingArray]:
        return {"rows": GrowingArray(np.uint16, (self.dim,))}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        return {"rows": to_bfloat16(rows)}

    def rows(self, arrays: Arrays) -> Rows:
        return Rows("bfloat16", arrays["rows"], self.dim)


class Int8(Form):
    """1 byte a dimension and 4 a vector: codes and a step are all there is."""

    name = "int8"

    def arrays(self) -> dict[str, GrowingArray]:
        return {"codes": GrowingArray(np.uint8, (padded(self.dim),)), "step": GrowingArray(np.float32)}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        codes, _, _ = exact.quantize(rows, checks.thread_count(None))
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        highest = np.nextafter(np.float32(FLOAT32_MAX / LEVELS), np.float32(0))  # 127 of these do not overflow
        least = np.where(largest > 0, np.finfo(np.float32).smallest_subnormal, np.float32(0))
        step = np.clip(largest / np.float32(LEVELS), least, highest)
        coarse = np.flatnonzero((step < np.finfo(np.float32).tiny) & (largest > 0))  # rounded by more than a little
        if coarse.size:
            exactly = rows[coarse].astype(np.float64) / step[coarse, None]
            codes[coarse, : self.dim] = np.clip(np.rint(exactly), -LEVELS, LEVELS) + 128
        return {"codes": codes, "step": step}

    def rows(self, arrays: Arrays) -> Rows:
        return Rows("codes", arrays["codes"], self.dim, arrays["step"])


class Planes(Form):
    """u bits a dimension and 4 bytes a vector: the odd integers of u bit planes, and a step (arXiv 2302.08714)."""

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__(dim)
        self.planes = planes

    def arrays(self) -> dict[str, GrowingArray]:
        width = self.planes * padded(self.dim) // 8
        return {"planes": GrowingArray(np.uint8, (width,)), "step": GrowingArray(np.float32)}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        planes, step, _, _ = exact.pack_planes(rows, self.planes, checks.thread_count(None))
        return {"planes": planes, "step": step}

    def rows(self, arrays: Arrays) -> Rows:
        return Rows("planes", arrays["planes"], self.dim, arrays["step"], self.planes)


class Coding:
    """What is scanned in place of the vectors: int8 codes of their directions, 1 byte a dimension and 8 a vector."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def arrays(self) -> dict[str, GrowingArray]:
        return {"codes": GrowingArray(np.uint8, (padded(self.dim),)), **self._bounds()}

    def _bounds(self) -> dict[str, GrowingArray]:
        return {"scale": GrowingArray(np.float32), "residual": GrowingArray(np.float32)}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        """Its arrays for these finite rows, which the store keeps as those arrays, their norms among them."""
        codes, scale, residual = exact.quantize(rows, checks.thread_count(None))
        return {"codes": codes, "scale": scale, "residual": residual}

    def codes(self, arrays: Arrays) -> Codes | Rows:
        return Codes(arrays["codes"], arrays["scale"], arrays["residual"])

    def flaw(self, heads: Arrays) -> str | None:
        """As `Form.flaw`."""
        return None


class OwnCodes(Coding):
    """The codes that the vectors are kept as, which are exact: a bound needs to cover rounding only.

    d_i = step c_i (1 + e), |e| <= 2^-24 (a product that is denormal is exact, as a multiple of 2^-149), and the scale
    is step / |d| rounded to float32: so |d/|d| - scale c| <= 2 * 2^-24 |step c| / |d| and a little, below 2^-22.
    """

    def __init__(self, dim: int, planes: int = 0) -> None:
        super().__init__(dim)
        self.planes = planes

    def arrays(self) -> dict[str, GrowingArray]:
        return self._bounds()

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        norms = kept["norms"]
        scale = np.divide(kept["step"], norms, out=np.zeros_like(norms), where=norms > 0)
        return {"scale": scale.astype(np.float32), "residual": np.where(norms > 0, DECODED, 0).astype(np.float32)}

    def codes(self, arrays: Arrays) -> Codes:
        codes = arrays["planes" if self.planes else "codes"]
        return Codes(codes, arrays["scale"], arrays["residual"], self.planes)


class PlaneCodes(Coding):
    """u bits a dimension and 8 bytes a vector. Their residuals, 0.6 for one bit to 0.1 for four, rule out too little:
    on SciFact four bits leave 15% of the documents, where int8 leaves 0.3%."""

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__(dim)
        self.planes = planes

    def arrays(self) -> dict[str, GrowingArray]:
        return {"planes": GrowingArray(np.uint8, (self.planes * padded(self.dim) // 8,)), **self._bounds()}

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        planes, _, scale, residual = exact.pack_planes(rows, self.planes, checks.thread_count(None))
        return {"planes": planes, "scale": scale, "residual": residual}

    def codes(self, arrays: Arrays) -> Codes:
        return Codes(arrays["planes"], arrays["scale"], arrays["residual"], self.planes, prunes=False)


class Store(RowStore):
    """Rows of one form with their norms, and codes of them where there is a coding: ``arrays`` by name, with one entry
    per row in each."""

    def __init__(self, name: str, form: Form, coding: Coding | None = None) -> None:
        self.name, self.form, self.coding = name, form, coding
        self.arrays = form.arrays()
        if form.keeps_norms:
            self.arrays["norms"] = GrowingArray(np.float64)
        if coding is not None:
            self.arrays |= coding.arrays()

    def append(self, rows: F32, first: int = 0) -> None:
        """Add rows. Raises ValueError for one with NaN or inf, or beyond the form's range, counting them from
        ``first``."""
        if type(self.form) is Form and type(self.coding) is Coding:
            self._append_coded(rows, first)
            return
        if type(self.form) is not Form:  # float32 rows show it in their norms
            checks.finite(rows, "vectors", first)
        parts = self.encode(rows, "vectors", lambda row: f"row {first + row}")
        for name, array in self.arrays.items():
            array.append(parts[name])

    def _append_coded(self, rows: F32, first: int) -> None:
        """`append` of float32 rows with int8 codes, in one pass: everything is written where it is to be."""
        in_memory = {name: array for name, array in self.arrays.items() if not isinstance(array, DiskArray)}
        room = {name: array.room(len(rows)) for name, array in in_memory.items()}
        exact.code_into(rows, room, checks.thread_count(None))
        self._check(room["norms"], "vectors", lambda row: f"row {first + row}")
        for name, array in self.arrays.items():
            if name in room:
                array.filled(len(rows))
            else:
                array.append(rows)

    def encode(self, rows: F32, name: str, place: Callable[[int], str]) -> Arrays:
        """These rows as arrays. ``name`` and ``place`` are for the ValueError where one does not fit."""
        share = self.share
        parts = self.form.encode(rows, share)
        parts["norms"] = exact.norms(self.form.rows(parts | share), self.form.dim, checks.thread_count(None))
        self._check(parts["norms"], name, place)
        return parts if self.coding is None else parts | self.coding.encode(rows, parts | share)

    def _check(self, norms: F64, name: str, place: Callable[[int], str]) -> None:
        """Raise for the first row whose norm shows NaN or inf: float64 does not overflow here."""
        bad = np.flatnonzero(~np.isfinite(norms))
        if bad.size and type(self.form) is Form:
            raise checks.non_finite(name, place(int(bad[0])))
        if bad.size:
            raise ValueError(
                f"{name} must stay finite in {self.form.name}; {place(int(bad[0]))} holds a value beyond its range"
            )

    def documents(
        self, count: int | None = None, cache: dict[Any, Any] | None = None, living: Living | None = None
    ) -> Documents:
        """The first ``count`` rows as a backend sees them; later changes do not show in it."""
        return self.view(self.heads(len(self.arrays["norms"]) if count is None else count), cache, living)

    def view(self, heads: Arrays, cache: dict[Any, Any] | None, living: Living | None = None) -> Documents:
        """What such arrays mean."""
        codes = None if self.coding is None else self.coding.codes(heads)
        rows = self.form.rows(heads)
        return Documents(rows, codes, heads.get("norms"), checked=True, cache=cache, living=living, store=self.name)

    def plain(self, count: int, ids: I64, cache: dict[Any, Any]) -> PlainDocuments | None:
        """The first ``count`` rows, with these ids, for a plain search; None where they are not float32."""
        if type(self.form) is not Form:
            return None
        rows, norms = self.arrays["rows"].head(count), self.arrays["norms"].head(count)
        if type(self.coding) is not Coding:  # there are no codes, or they bound nothing
            return PlainDocuments(rows, ids, norms, cache=cache)
        codes, scale, residual = (self.arrays[name].head(count) for name in ("codes", "scale", "residual"))
        return PlainDocuments(rows, ids, norms, codes, scale, residual, cache)

    def flaw(self, heads: Arrays) -> str | None:
        flaw = super().flaw(heads) or self.form.flaw(heads)
        return flaw or (None if self.coding is None else self.coding.flaw(heads))


PLAIN = {"float32": Form, "float16": Float16, "bfloat16": BFloat16}  # these are scanned as they are
PLANES = {"binary": 1, "residual2": 2, "residual3": 3, "residual4": 4}
STORES = (*PLAIN, "int8", *PLANES)
ORIGINALS = ("ram", "disk", None)


def make(name: str, originals: str | None, dim: int, directory: str | None = None) -> Store:
    """The store of that name for vectors of ``dim`` dimensions; ``originals`` None where its codes are the vectors,
    "disk" where the vectors are in a file in ``directory``."""
    checks.choice(name, "store", STORES)
    check_originals(originals)
    if name in PLAIN:
        if originals != "ram":
            kept = "which keeps vectors and no codes"
            raise ValueError(f"originals must be 'ram' for store {name!r}, {kept}; got {originals!r}")
        return Store(name, PLAIN[name](dim))
    check_extension(name)
    planes = PLANES.get(name, 0)
    if originals is None:
        return Store(name, Planes(dim, planes) if planes else Int8(dim), OwnCodes(dim, planes))
    store = Store(name, Form(dim), PlaneCodes(dim, planes) if planes else Coding(dim))
    if originals == "disk":
        store.arrays["rows"] = DiskArray(np.float32, (dim,), directory)
    return store


def check_originals(value: Any) -> None:
    if not (value is None or isinstance(value, str)) or value not in ORIGINALS:
        raise ValueError(f"originals must be one of {', '.join(map(repr, ORIGINALS))}; got {value!r}")


def check_extension(name: str) -> None:
    if exact.native() is None:
        raise RuntimeError(f"store {name!r} needs the compiled extension (pip install .); store='float32' does not")
