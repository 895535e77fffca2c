"""Hostile arguments, drawn from a random generator, each with what it means: its truth, or that it must be refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyengine.types import F32, I64

Rng = np.random.Generator
HOSTILE = 0.06  # of the arguments


class Argument(NamedTuple):
    """What is passed; what it means, in plain form; whether it is one that must be taken."""

    value: Any
    truth: Any
    good: bool = True


def bad(value: Any) -> Argument:
    return Argument(value, None, good=False)


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _magnitudes(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-44, 37, (shape[0], 1)))


CONTENTS: tuple[Callable[[Rng, tuple[int, int]], np.ndarray], ...] = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: rng.integers(-1, 2, shape).astype(float),  # ties, and zero vectors
    lambda rng, shape: rng.standard_normal((3, shape[1]))[rng.integers(0, 3, shape[0])],  # duplicates
    lambda rng, shape: np.zeros(shape),
    lambda rng, shape: -np.zeros(shape),
    lambda rng, shape: rng.standard_normal(shape) * 1e-43,  # denormal
    lambda rng, shape: rng.standard_normal(shape) * 2e38,  # up to float32's limit
    lambda rng, shape: 1000 + 1e-3 * rng.standard_normal(shape),
    lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.1),
    _magnitudes,
)
DTYPES = ("f4", "f4", "f4", "f8", "f2", ">f4", "<f8", ">f8", "g", "i1", "u1", ">i2", "i8", "u8")
LARGEST = {"f2": 6e4, "i": 100, "u": 100}


def contents(rng: Rng, n: int, dim: int) -> np.ndarray:
    """Finite numbers [n, dim] of some real dtype, all within float32."""
    dtype = pick(rng, DTYPES)
    rows = pick(rng, CONTENTS)(rng, (n, dim))
    kind = np.dtype(dtype).kind
    limit = LARGEST.get(dtype, LARGEST.get(kind, 3.4e38))
    rows = np.clip(rows, 0 if kind == "u" else -limit, limit)
    return np.asarray(np.rint(rows) if kind in "iu" else rows, np.dtype(dtype))


class ArrayLike:
    """Nothing but ``__array__``."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


class Dlpack:
    """Nothing but the DLPack protocol."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


def _unaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    shifted = raw[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return np.asarray(shifted)


def _read_only(array: np.ndarray) -> np.ndarray:
    copied = np.array(array)
    copied.flags.writeable = False
    return copied


def _mapped(array: np.ndarray) -> np.ndarray:
    if array.size == 0:  # mmap has no empty maps
        return array
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, array.dtype, shape=array.shape)
        mapped[...] = array
        return mapped


def _listed(array: np.ndarray) -> Any:
    return array.tolist() if array.size else array  # an empty list has no second dimension


def _dlpack(array: np.ndarray) -> Any:
    return Dlpack(array) if array.dtype.isnative and array.dtype.char != "g" else array


FORMS: tuple[Callable[[np.ndarray], Any], ...] = (
    lambda array: array,
    np.asfortranarray,
    lambda array: np.flip(np.flip(array).copy()),  # negative strides
    lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    lambda array: np.repeat(array, 3, axis=0)[1::3],
    lambda array: np.stack([array, array], axis=-1)[..., 1],
    lambda array: array.T.copy().T,
    _unaligned,
    _read_only,
    _mapped,
    _listed,
    _dlpack,
    ArrayLike,
    lambda array: np.ascontiguousarray(array).data,
    np.ma.masked_array,  # with nothing masked
)


def form(rng: Rng, array: np.ndarray) -> Any:
    """The same values, laid out in some other way or held by some other type."""
    return pick(rng, FORMS)(array)


def vectors(rng: Rng, n: int, dim: int) -> Argument:
    """Rows that must be taken; the truth is float32 [n, dim]."""
    rows = contents(rng, n, dim)
    truth: F32 = rows.astype(np.float32)
    return Argument(form(rng, rows), truth)


def _with(rows: F32, value: float) -> np.ndarray:
    changed = rows.astype(np.float64)
    changed.flat[changed.size // 2] = value
    return changed


def _signalling(rows: F32) -> np.ndarray:
    bits = rows.copy().view(np.uint32)
    bits.flat[-1] = 0xFFA00001  # a signalling NaN, negative
    found: F32 = bits.view(np.float32)
    return found


def spoiled(rng: Rng, n: int, dim: int) -> Argument:
    """No rows of ``dim`` finite numbers, in whatever way."""
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    ways: list[Callable[[], Any]] = [
        lambda: rows.ravel(), lambda: rows[None], lambda: np.float32(1), lambda: np.zeros(()), lambda: rows[:, :0],
        lambda: np.ones((n, 0)), lambda: rows > 0, lambda: rows.astype(complex), lambda: rows.astype(object),
        lambda: rows.astype(str), lambda: rows.astype("S"), lambda: np.zeros((n, dim), "M8[s]"),
        lambda: np.zeros((n, dim), [("x", "f4")]), lambda: np.zeros(n, [("x", "f4", dim)]),
        lambda: np.zeros((n, dim), "V4"), lambda: np.ma.masked_array(np.ones((n + 1, dim)), True), lambda: None,
        lambda: "text", lambda: b"bytes", dict, object, set,
        lambda: [[1.0], [1.0, 2.0]], lambda: np.ones((n, dim + 1)), lambda: ArrayLike, lambda: float("nan"),
        lambda: [[None] * dim], lambda: [["1"] * dim], lambda: memoryview(b"abc"), lambda: np.ones((1,) * 32),
    ]  # fmt: skip
    if n:  # values that are not finite in float32
        hostile = (np.nan, -np.nan, np.inf, -np.inf, 1e39, -1e300, 3.5e38)
        ways += 3 * [lambda: form(rng, _with(rows, pick(rng, hostile))), lambda: _signalling(rows)]
    return bad(pick(rng, ways)())


NUMBERS = (
    0,
    -1,
    1 << 31,
    1 << 63,
    1 << 64,
    -(1 << 63),
    2.0,
    1.5,
    float("nan"),
    True,
    "3",
    b"3",
    [3],
    None,
    np.float32(2),
)


def number(rng: Rng, least: int, most: int) -> Argument:
    """An integer in least .. most, of some integer type."""
    value = int(rng.integers(least, most + 1))
    return Argument(pick(rng, (int, np.int64, np.uint32, np.int32))(value), value)


def no_number(rng: Rng, but: tuple[Any, ...] = ()) -> Argument:
    """No positive integer below 2^31; ``but`` are values that mean something here."""
    return bad(pick(rng, [value for value in NUMBERS if value not in but]))


def mask(rng: Rng, n_queries: int, n_docs: int) -> Argument:
    """Booleans or a bitmap, of one row or one for each query; the truth is bool [Q, N]."""
    rows = pick(rng, (1, n_queries))
    allowed = rng.random((rows, n_docs)) < pick(rng, (0.0, 0.005, 0.5, 1.0))
    truth = np.broadcast_to(allowed, (n_queries, n_docs))
    value = allowed
    if rng.random() < 0.5:
        value = np.packbits(allowed, axis=1, bitorder="little")
        if n_docs % 8:
            value[:, -1] |= np.uint8(0xFF << n_docs % 8 & 0xFF)  # bits that stand for no document
    if len(value) == 1 and (n_queries != 1 or rng.random() < 0.5):
        value = value[0]
    return Argument(form_in_memory(rng, value), truth)


def form_in_memory(rng: Rng, array: np.ndarray) -> Any:
    """`form`, of those that keep the dtype of bool and uint8."""
    return pick(rng, [each for each in FORMS if each is not _listed and each is not _dlpack])(array)


def no_mask(rng: Rng, n_queries: int, n_docs: int) -> Argument:
    wrong = (np.ones(n_docs + 9, bool), np.ones((n_queries + 2, n_docs), bool), np.ones(n_docs),
             np.ones(n_docs, np.int64), np.ones((1, 1, n_docs), bool), np.ones(n_docs // 8 + 2, np.uint8), "mask",
             np.array(True), object())  # fmt: skip
    return bad(pick(rng, wrong))


def bias(rng: Rng, n_docs: int) -> Argument:
    """One finite number for each document; the truth is float64 [N]."""
    scale = pick(rng, (1.0, 1e-3, 1e30, 1e300, 1e-310))
    values = (rng.standard_normal(n_docs) * scale).astype(pick(rng, ("f8", ">f8"))) if rng.random() < 0.8 else None
    if values is None:
        values = rng.integers(0, 100, n_docs).astype(pick(rng, ("u1", "i8", "f4", "f2")))
    return Argument(form(rng, values) if n_docs else values, values.astype(np.float64))


def no_bias(rng: Rng, n_docs: int) -> Argument:
    wrong = [np.ones(n_docs + 1), np.ones((n_docs, 1)), np.ones(n_docs, complex), "bias", np.full(n_docs, "1"), 1.0]
    wrong += [_with(np.ones(n_docs, np.float32), value) for value in (np.nan, np.inf, -np.inf) if n_docs]
    return bad(pick(rng, wrong))


def ids(rng: Rng, n: int, known: I64) -> Argument:
    """``n`` distinct ids, none of them known; the truth is int64 [n]."""
    most = pick(rng, (3 * (n + len(known)) + 1, 1 << 31, (1 << 63) - 1))
    found: dict[int, None] = {}
    taken = set(known.tolist())
    while len(found) < n:
        candidate = int(rng.integers(0, most, endpoint=True))
        if candidate not in taken:
            found[candidate] = None
    truth = np.array(list(found), np.int64)
    return Argument(form(rng, truth.astype(pick(rng, ("i8", "u8", ">i8")))), truth)


def no_ids(rng: Rng, n: int, known: I64) -> Argument:
    """No ``n`` >= 1 new ids."""
    first = int(known.max()) + 1 if len(known) and known.max() < 1 << 62 else 1 << 40
    good = np.arange(first, first + n)
    wrong: list[Any] = [
        good.astype(float), good[None], np.append(good, first + n), np.append(good[1:], -1), "ids", [None] * n,
        np.append(good[1:].astype(np.uint64), np.uint64(1 << 63)), [1 << 64] * n, good > 0, np.append(good, first),
    ]  # fmt: skip
    if n > 1:
        wrong.append(np.append(good[1:], good[-1]))
    if len(known):
        wrong.append(np.append(good[1:], known[0]))
    return bad(pick(rng, wrong))
