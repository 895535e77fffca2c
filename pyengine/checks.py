"""What an input must be. Every message names the argument, says what it was and what was expected."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyengine.inputs.device_arrays import DeviceArray
from pyengine.types import F32, F64, I64, U8

PRECISIONS = ("exact", "fast")
MAX_THREADS = 1024  # more are taken for this many
RESIDENT = ("cuda",)  # kinds of torch device where documents stay: those that have float64
BYTES = ("float8_e4m3fn", "float8_e5m2")  # floats of a byte, as torch and ml_dtypes name them: all are float16 values
SHORT = ("bfloat16", *BYTES)  # floats without arithmetic of NumPy's own: all are float32 values


def is_torch(value: Any) -> bool:
    """Whether the value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def dtype_name(tensor: Any) -> str:
    """The name of a torch dtype, as ml_dtypes and NumPy have it."""
    return str(tensor.dtype).removeprefix("torch.")


def widened(tensor: Any) -> Any:
    """A tensor of floats of a byte as float16, with which torch can calculate; any other as it is."""
    return tensor.half() if dtype_name(tensor) in BYTES else tensor


def device_of(value: Any) -> Any:
    """The device of a torch tensor, or of an array on a GPU; None for everything else."""
    return value.device if is_torch(value) or isinstance(value, DeviceArray) else None


def choice(value: Any, name: str, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def given(value: Any, name: str) -> Any:
    """The value, which may not be None."""
    if value is None:
        raise TypeError(f"{name} must be given; got None")
    return value


def integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None


def positive_int(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a positive integer; got {value!r}") from None
    if isinstance(value, (bool, np.bool_)) or not 0 < number < 1 << 31:
        raise ValueError(f"{name} must be a positive integer below 2^31; got {value!r}")
    return number


def thread_count(value: Any) -> int:
    """``num_threads``, else OMP_NUM_THREADS, else the cores this process may use."""
    if value is not None:
        return min(positive_int(value, "num_threads"), MAX_THREADS)
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), MAX_THREADS)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def path(value: Any, name: str) -> str:
    """A path as a string."""
    found = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(found, str):
        raise TypeError(f"{name} must be a path; got {value!r}")
    if not found or "\0" in found:
        raise ValueError(f"{name} must be the path of a folder; got {found!r}")
    return found


def folder(value: Any, name: str) -> str | None:
    """The path of a folder that exists, or None."""
    if value is None:
        return None
    found = path(value, name)
    if not os.path.isdir(found):
        raise ValueError(f"{name} must be a folder that exists; got {found!r}")
    return found


def host_array(value: Any, name: str) -> np.ndarray:
    """Any array-like on the host as NumPy: torch on the CPU, DLPack, buffers, ``__array__``, nested lists. Floats of
    the kinds of `SHORT` become float32."""
    if type(value) is np.ndarray:
        return _known(value)
    if is_torch(value):
        return _from_torch(value, name)
    if np.ma.is_masked(value):
        raise TypeError(f"{name} must be an array of numbers; got a masked array with entries that are masked out")
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return _known(np.asarray(value))
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        got = f"a {type(value).__name__} that is not one ({_reason(error)})"
        raise TypeError(f"{name} must be an array of numbers; got {got}") from None


def _known(array: np.ndarray) -> np.ndarray:
    """An array of ml_dtypes as float32, where that holds its values; any other as it is."""
    of_others = array.dtype.isbuiltin == 2
    return array.astype(np.float32) if of_others and array.dtype.name in SHORT else array


def _from_torch(tensor: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(tensor.numpy())
    except (TypeError, RuntimeError):  # a GPU's, or one with a gradient, or of a kind of `SHORT`
        pass
    try:
        tensor = tensor.detach().cpu()
        if dtype_name(tensor) in SHORT:
            tensor = tensor.float()
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except (TypeError, RuntimeError) as error:
        got = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise TypeError(f"{name} must be a dense tensor of numbers; got {got} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """The first sentence of another library's message."""
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")


def vectors(value: Any, name: str, dim: int | None = None) -> F32:
    """Rows as float32 [n, D], C-contiguous and aligned, not copied where they already are. Wider types are
    rounded to float32, which is then the truth. Whether they are finite is checked apart (`finite`), since a kernel may
    do it."""
    array = host_array(value, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers (float or int); got dtype {array.dtype}")
    matrix(array.shape, name, dim)
    if array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned:
        return array
    with np.errstate(over="ignore", under="ignore"):  # what overflows becomes inf, and is refused as such
        return np.require(array, np.float32, ["C", "A"])  # aligned too: what the kernels' loads may assume


def matrix(shape: Sequence[int], name: str, dim: int | None = None) -> None:
    shape = tuple(shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{name} must have shape [n, D] with D >= 1; got shape {shape}")
    if dim is not None and shape[1] != dim:
        raise ValueError(f"{name} must have {dim} dimensions per row; got shape {shape}")


def documents(docs: Any, queries: Any, names: tuple[str, str] = ("queries", "docs")) -> Any:
    """The documents of a search with these queries: `vectors`, or what is on the GPU where both are."""
    places = [str(device_of(each)) if _resident(each) else "the host" for each in (queries, docs)]
    if places[0] != places[1]:
        got = f"{names[0]} on {places[0]}, {names[1]} on {places[1]}"
        raise ValueError(f"{names[0]} and {names[1]} must be on one device; got {got}")
    return _device_vectors(docs, names[1]) if _resident(docs) else vectors(docs, names[1])


def _resident(value: Any) -> bool:
    return isinstance(value, DeviceArray) or (is_torch(value) and value.device.type in RESIDENT)


def _device_vectors(tensor: Any, name: str) -> Any:
    """`vectors` of a tensor, which stays where it is. Values of 16 bits stay as they are, floats of a byte become
    float16, and an array that is not torch's stays as it is."""
    if isinstance(tensor, DeviceArray):
        return tensor
    if not (tensor.dtype.is_floating_point or "int" in str(tensor.dtype)) or str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name} must be a dense tensor of real numbers; got {tensor.dtype}, {tensor.layout}")
    matrix(tensor.shape, name)
    tensor = widened(tensor.detach())
    return (tensor if dtype_name(tensor) in ("float16", "bfloat16") else tensor.float()).contiguous()


def finite(rows: Any, name: str, first: int = 0) -> None:
    """Raise for the first row [n, D] that holds NaN or inf (or overflowed float32), counting them from ``first``."""
    block = max(1, (1 << 20) // max(1, rows.shape[1]))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        good = part.isfinite() if is_torch(part) else np.isfinite(part)
        if not good.all():
            bad = np.flatnonzero(~np.asarray(good.all(1).cpu() if is_torch(part) else good.all(1)))
            raise non_finite(name, f"row {first + start + int(bad[0])}")


def non_finite(name: str, place: str) -> ValueError:
    return ValueError(f"{name} must be finite in float32; {place} holds NaN, inf or a value beyond 3.4e38")


def prefix(dims: Any, dim: int) -> int:
    """``dims``: how many leading dimensions are scored; None for all."""
    if dims is None:
        return dim
    leading = positive_int(dims, "dims")
    if leading > dim:
        raise ValueError(f"dims must be at most the {dim} dimensions of the vectors; got {leading}")
    return leading


def bitmap(mask: Any, n_queries: int, n_docs: int) -> U8 | None:
    """A mask as packed bits, uint8 [1 or Q, ceil(N/8)], bit i of byte j standing for document 8j+i.

    Takes booleans [N], [1, N] or [Q, N], or such a bitmap [ceil(N/8)] and so on; True means "may be returned".
    """
    if mask is None:
        return None
    array = host_array(mask, "mask")
    if array.dtype != np.bool_ and array.dtype != np.uint8:
        raise TypeError(f"mask must be bool, or a uint8 bitmap; got dtype {array.dtype}")
    width = n_docs if array.dtype == np.bool_ else -(-n_docs // 8)
    if array.shape not in ((width,), (1, width), (n_queries, width)):
        form = "booleans" if array.dtype == np.bool_ else "bitmap bytes"
        raise ValueError(f"mask must have shape ({width},) or ({n_queries}, {width}) as {form}; got {array.shape}")
    array = np.atleast_2d(array)
    return np.ascontiguousarray(np.packbits(array, axis=1, bitorder="little") if array.dtype == np.bool_ else array)


ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def count(bits: U8) -> int:
    """How many bits of a bitmap are set, those of its last byte's padding included."""
    return int(ONES[bits].sum())


def unpack(bits: U8, n_docs: int) -> np.ndarray:
    """The booleans [1 or Q, N] of a bitmap."""
    return np.unpackbits(bits, axis=1, count=n_docs, bitorder="little").astype(bool)


def biases(bias: Any, n_docs: int) -> F64 | None:
    """One finite float per document, as float64 [N]."""
    if bias is None:
        return None
    array = host_array(bias, "bias")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"bias must hold real numbers (float or int); got dtype {array.dtype}")
    if array.shape != (n_docs,):
        raise ValueError(f"bias must have shape ({n_docs},), one per document; got {array.shape}")
    array = np.require(array, np.float64, ["C", "A"])
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(f"bias must be finite; entry {bad[0]} is {array[bad[0]]} (use mask to leave a document out)")
    return array


def unordered(ids: Any) -> Any:
    """Ids whose order does not matter: a set of them as a list, anything else as it is."""
    return list(ids) if isinstance(ids, (set, frozenset)) else ids


def id_list(ids: Any, name: str = "ids") -> I64:
    """Document ids as int64 [n], each once and none negative."""
    array = host_array(ids, name)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [n]; got shape {array.shape}")
    if int(array.max()) > np.iinfo(np.int64).max or int(array.min()) < 0:
        raise ValueError(f"{name} must lie in 0 .. 2^63-1; got values from {array.min()} to {array.max()}")
    values, counts = np.unique(array, return_counts=True)
    if values.size != array.size:
        raise ValueError(f"{name} must be distinct; id {values[counts > 1][0]} occurs {counts.max()} times")
    return array.astype(np.int64)
