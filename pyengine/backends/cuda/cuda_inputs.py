"""Arrays on a GPU by the protocols of cupy, jax, numba and others, for the backend "cuda": where they are, without a
copy. torch's own tensors are taken by every backend for GPUs, and pass through here as they are."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends.cuda import cuda_device
from pyengine.inputs.device_arrays import VALUES, DeviceArray

DLPACK_GPU = 2  # the kind of device; pinned and managed memory are others, which NumPy reads
DLPACK_KINDS = {  # by type code and bits; what is not of `VALUES` is refused by its name
    (2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16", (10, 8): "float8_e4m3fn", (12, 8): "float8_e5m2",
}  # fmt: skip
DEFAULT = 1  # the default stream, as both protocols name it


def operands(queries: Any, docs: Any) -> tuple[Any, Any]:
    """The queries as they are, or adopted, and the documents of a search with them (`checks.documents`)."""
    queries, docs = adopted(queries, "queries"), adopted(docs, "docs")
    return queries, checks.documents(docs, queries)


def adopted(value: Any, name: str) -> Any:
    """A `DeviceArray` in the place of an array on a GPU that is not torch's; anything else, and everything where the
    backend cannot run, as it is.

    ``__cuda_array_interface__`` is asked first: what it names is read on the stream that it names, and so after what
    the producer has begun there. ``__dlpack__`` is asked to have it ready for the default stream.
    """
    if checks.is_torch(value) or isinstance(value, (np.ndarray, DeviceArray)):
        return value
    interface = getattr(value, "__cuda_array_interface__", None)
    described = interface is None and getattr(value, "__dlpack_device__", lambda: (0, 0))()[0] == DLPACK_GPU
    if (interface is None and not described) or cuda_device.missing():
        return value
    return _of_dlpack(value, name) if described else _of_interface(value, interface, name)


def _of_interface(value: Any, interface: Any, name: str) -> DeviceArray:
    if interface.get("mask") is not None:
        raise TypeError(f"{name} must be an array of numbers; got one with a mask")
    stream = interface.get("stream")
    if stream == 0:
        raise ValueError(f"{name} must name its stream by a number above 0 (1: the default one), or None; got 0")
    shape, pointer = tuple(interface["shape"]), interface["data"][0]
    gpu = cuda_device.gpu(0 if 0 in shape else _owner(pointer, name))
    gpu = gpu._replace(stream=0 if stream in (None, DEFAULT) else stream)
    return _made(value, pointer, shape, _kind(interface["typestr"]), interface.get("strides"), gpu, name)


def _kind(typestr: str) -> str:
    """The name of a type; what NumPy does not know, or reads the other way round, is left as it is."""
    try:
        dtype = np.dtype(typestr)
    except TypeError:
        return typestr
    name: str = dtype.name if dtype.isnative else dtype.str
    return name


def _owner(pointer: int, name: str) -> int:
    try:
        number: int = cuda_device.gpu(0).device.owner_of(pointer)
    except RuntimeError as error:
        raise ValueError(f"{name} must be in the memory of a GPU; got address {pointer:#x} ({error})") from None
    return number


class _Tensor(ctypes.Structure):
    """DLTensor, with which a DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device_type", ctypes.c_int32),
        ("device_number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _of_dlpack(value: Any, name: str) -> DeviceArray:
    """The capsule is kept as it is, and gives the memory back when it goes."""
    try:
        capsule = value.__dlpack__(stream=DEFAULT)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        got = f"a {type(value).__name__} that does not ({error})"
        raise TypeError(f"{name} must be an array that lends its memory by DLPack; got {got}") from None
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer_of(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    size = tensor.bits * tensor.lanes // 8
    strides = [each * size for each in tensor.strides[: tensor.ndim]] if tensor.strides else None
    kind = DLPACK_KINDS.get((tensor.code, tensor.bits), "") if tensor.lanes == 1 else ""
    kind = kind or f"DLPack type {tensor.code} of {tensor.lanes} x {tensor.bits} bits"
    gpu = cuda_device.gpu(tensor.device_number)
    return _made(capsule, tensor.data + tensor.byte_offset, shape, kind, strides, gpu, name)


def _made(
    owner: Any,
    pointer: int,
    shape: tuple[int, ...],
    kind: str,
    strides: Sequence[int] | None,
    gpu: cuda_device.Gpu,
    name: str,
) -> DeviceArray:
    """``strides`` count bytes; None: row after row."""
    if kind not in VALUES:
        raise TypeError(f"{name} on a GPU must be {', '.join(VALUES)}; got {kind}")
    checks.matrix(shape, name)
    size = VALUES[kind][0].itemsize
    between, within = strides or (shape[1] * size, size)
    if shape[0] == 1:  # of a single row it may be anything
        between = shape[1] * size
    if (within != size and shape[1] > 1) or between < 0 or between % size:
        got = f"strides of {between} and {within} bytes"
        raise ValueError(f"{name} on a GPU must have rows of adjacent values; got {got} of {kind}")
    if pointer % size:
        raise ValueError(f"{name} on a GPU must be aligned to their values; got address {pointer:#x} of {kind}")
    return DeviceArray(owner, pointer, (shape[0], shape[1]), kind, between // size, gpu)
