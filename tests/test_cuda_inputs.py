"""Arrays on a GPU that are not torch's: searched where they are, on the stream that they name, or refused in a
sentence."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_documents
from pyengine.backends.cuda.cuda_device import Array
from pyengine.backends.cuda.cuda_inputs import DLPACK_GPU, DLPACK_KINDS, _Tensor, adopted
from pyengine.inputs.device_arrays import DeviceArray
from pyengine.inputs.rows import bfloat16_values, to_bfloat16
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows

pytestmark = pytest.mark.usefixtures("emulated")


class Interface:
    """An array of the emulator's memory, as cupy and numba show theirs."""

    def __init__(self, values: Any, stream: int | None = None, **changed: Any) -> None:
        self.held = cuda_device.gpu(0).array(values)
        self.__cuda_array_interface__ = {
            "shape": values.shape, "typestr": values.dtype.str, "data": (self.held.pointer, True), "version": 3,
            "strides": None, "stream": stream, **changed,
        }  # fmt: skip


class Lent:
    """The same by DLPack: ``device`` is (type, number), ``shown`` how many values of each row are lent."""

    def __init__(self, values: Any, kind: str = "", device: tuple[int, int] = (DLPACK_GPU, 0), shown: int = 0) -> None:
        self.held: Array = cuda_device.gpu(0).array(values, kind or None)
        self.device, self.streams = device, list[Any]()
        self.shape = (ctypes.c_int64 * 2)(len(values), shown or values.shape[1])
        self.strides = (ctypes.c_int64 * 2)(values.shape[1], 1)
        codes = {name: code for code, name in DLPACK_KINDS.items()}
        code, bits = codes.get(kind or values.dtype.name, (0, 32))
        self.managed = (_Tensor * 2)()  # the manager's fields follow the tensor; nobody calls them
        self.managed[0] = _Tensor(self.held.pointer - 16, *device, 2, code, bits, 1, self.shape, self.strides, 16)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return make(ctypes.addressof(self.managed), b"dltensor", None)


@pytest.mark.parametrize("make", [Interface, Lent])
@pytest.mark.parametrize(("metric", "kind"), [("cosine", "float32"), ("l2", "float16"), ("dot", "float32")])
def test_they_stay_where_they_are(
    make: Callable[[Any], Any], metric: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_documents, "copied", lambda *given: pytest.fail("copied"))
    docs, queries = rows(1, 150, 24).astype(kind), rows(2, 3, 24).astype(kind)
    want = pe.topk(queries.astype(np.float32), docs.astype(np.float32), 5, metric=metric, backend="numpy")
    for name in ("auto", "cuda"):
        found = pe.topk(make(queries), make(docs), 5, metric=metric, backend=name)
        conformance.same(found, want, name)
        assert isinstance(found.ids, np.ndarray)


def test_bfloat16_rows_that_lie_apart() -> None:
    """Of 32 values in a row 20 are shown, of which 9 are scored."""
    docs, queries = to_bfloat16(rows(3, 90, 32)), to_bfloat16(rows(4, 2, 32))
    values, asked = bfloat16_values(docs)[:, :20], bfloat16_values(queries)[:, :20]
    lent, asking = Lent(docs, "bfloat16", shown=20), Lent(queries, "bfloat16", shown=20)
    for dims in (20, 9):
        want = pe.topk(asked, values, 4, dims=dims, backend="numpy")
        conformance.same(pe.topk(asking, lent, 4, dims=dims), want, "bfloat16")
    assert set(lent.streams) == {1}
    for metric in ("cosine", "l2"):
        problem = dense.prepare(asked, Documents(adopted(lent, "docs")), 4, metric=metric)
        want = pe.topk(asked, values, 4, metric=metric, backend="numpy")
        conformance.same(registry.get("cuda").scan(problem), want, "the last resort")


@pytest.mark.parametrize("apart", [0, 2, 8])
def test_a_single_row_has_any_stride(apart: int) -> None:
    halves = rows(5, 1, 40).astype(np.float16)
    docs = Interface(halves, strides=(apart, 2))
    found = adopted(docs, "docs")
    assert isinstance(found, DeviceArray)
    assert found.stride == 40
    assert pe.topk(Interface(rows(6, 2, 40)), docs, 1, backend="cuda").scores.tolist() == (
        pe.topk(rows(6, 2, 40), halves, 1, backend="numpy").scores.tolist()
    )


def test_the_rest_of_the_searches_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    docs, queries = rows(5, 60, 8), rows(6, 3, 8)
    there, asked = Interface(docs), Lent(queries)
    assert (pe.rank_of(asked, there, [1, 2, 3]) == pe.rank_of(queries, docs, [1, 2, 3])).all()
    for ours, theirs in zip(pe.range_search(asked, there, 0.2), pe.range_search(queries, docs, 0.2)):
        assert (ours == theirs).all()
    for ours, theirs in zip(pe.topk_both(asked, there, 2), pe.topk_both(queries, docs, 2)):
        conformance.same(ours, theirs, "both")
    index = pe.DenseIndex(8)
    index.add(docs)
    conformance.same(index.search(asked, 4), index.search(queries, 4), "an index")


def test_the_stream_is_the_producers(emulated: FakeDriver) -> None:
    docs, queries = rows(7, 50, 8), rows(8, 2, 8)
    for stream, told in ((None, 0), (1, 0), (2, 2), (4711, 4711)):
        asked, there = Interface(queries, stream), Interface(docs, stream)
        emulated.forget()
        pe.topk(asked, there, 3, backend="cuda")
        assert {line.split()[-1] for line in emulated.log} == {str(told)}
    with pytest.raises(ValueError, match=r"^docs must name its stream by a number above 0 \(1: the default one\)"):
        pe.topk(Interface(queries), Interface(docs, 0), 3)


VALUES = rows(9, 6, 8)


def lent_as(code: int, bits: int) -> Lent:
    """Of that type, as DLPack numbers them."""
    lent = Lent(VALUES)
    lent.managed[0].code, lent.managed[0].bits = code, bits
    return lent


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda: Interface(VALUES.astype(np.float64)), TypeError,
         "docs on a GPU must be float32, float16, bfloat16; got float64"),
        (lambda: Interface(VALUES, typestr=">f4"), TypeError, "docs on a GPU must be .*; got >f4"),
        (lambda: Lent(VALUES.view(np.int32)), TypeError, "docs on a GPU must be .*; got DLPack type 0 of 1 x 32 bits"),
        (lambda: Interface(VALUES, typestr="<f1"), TypeError, "docs on a GPU must be .*; got <f1"),
        (lambda: Interface(VALUES, typestr="<V1"), TypeError, "docs on a GPU must be .*; got void8"),
        (lambda: lent_as(10, 8), TypeError, "docs on a GPU must be float32, float16, bfloat16; got float8_e4m3fn"),
        (lambda: lent_as(12, 8), TypeError, "docs on a GPU must be float32, float16, bfloat16; got float8_e5m2"),
        (lambda: Interface(VALUES[0]), ValueError, r"docs must have shape \[n, D\] with D >= 1; got shape \(8,\)"),
        (lambda: Interface(VALUES, strides=(4, 24)), ValueError,
         "docs on a GPU must have rows of adjacent values; got strides of 4 and 24 bytes of float32"),
        (lambda: Interface(VALUES, strides=(-32, 4)), ValueError, "got strides of -32 and 4 bytes"),
        (lambda: Interface(VALUES, strides=(34, 4)), ValueError, "got strides of 34 and 4 bytes"),
        (lambda: Interface(VALUES, mask=VALUES), TypeError, "docs must be an array of numbers; got one with a mask"),
        (lambda: Interface(VALUES, data=(4096, True)), ValueError,
         "docs must be in the memory of a GPU; got address 0x1000 .cuPointerGetAttribute failed"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said_in_a_sentence(made: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{said}" if said[0] == "d" else said):
        pe.topk(Interface(VALUES), made(), 2, backend="cuda")


def test_addresses_are_aligned() -> None:
    there = Interface(VALUES)
    there.__cuda_array_interface__["data"] = (there.held.pointer + 2, True)
    there.__cuda_array_interface__["shape"] = (5, 8)
    with pytest.raises(ValueError, match=r"^docs on a GPU must be aligned to their values; got address 0x"):
        pe.topk(Interface(VALUES), there, 2)


def test_both_are_on_one_gpu(emulated: FakeDriver) -> None:
    with pytest.raises(ValueError, match=r"must be on one device; got queries on the host, docs on cuda:0$"):
        pe.topk(VALUES, Interface(VALUES), 2)
    asked = adopted(Interface(VALUES), "queries")
    emulated.tell(devices=2, ordinal=1)
    with pytest.raises(ValueError, match=r"must be on one device; got queries on cuda:0, docs on cuda:1$"):
        pe.topk(asked, Interface(VALUES), 2)


def test_a_producer_that_does_not_lend_is_told() -> None:
    class Busy(Lent):
        def __dlpack__(self, *, stream: Any = None) -> Any:
            raise BufferError("it requires a gradient")

    said = "docs must be an array that lends its memory by DLPack; got a Busy that does not (it requires a gradient)"
    with pytest.raises(TypeError) as refused:
        pe.topk(Interface(VALUES), Busy(VALUES), 2)
    assert str(refused.value) == said


def test_a_row_with_nan_is_named() -> None:
    docs = rows(6, 50, 8)
    docs[41, 3] = np.inf
    for dims in (8, 3):
        with pytest.raises(ValueError, match="row 41"):
            pe.topk(Interface(rows(7, 2, 8)), Interface(docs), 3, dims=dims, backend="cuda")


def test_no_documents_and_no_queries() -> None:
    none = Interface(VALUES[:0], data=(0, True))
    assert pe.topk(Interface(VALUES), none, 2).ids.tolist() == [[-1, -1]] * 6
    assert pe.topk(none, Interface(VALUES), 2).ids.shape == (0, 2)


def test_other_backends_say_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="cpu: it reads host memory, and the documents are on cuda:0"):
        pe.topk(Interface(VALUES), Interface(VALUES), 2, backend="cpu")
    for name in ("torch", "triton"):
        if registry.get(name).missing() is None:
            with pytest.raises(RuntimeError, match=r"another array on cuda:0: pass torch\.from_dlpack of both"):
                pe.topk(Interface(VALUES), Interface(VALUES), 2, backend=name)


def test_host_arrays_by_dlpack_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, in pinned or in managed memory: what NumPy reads by DLPack is read by it, and nothing is adopted."""
    torch = pytest.importorskip("torch")

    class Only:
        """A tensor that shows nothing but DLPack."""

        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __dlpack__(self, **given: Any) -> Any:
            return self.tensor.__dlpack__(**given)

        def __dlpack_device__(self) -> Any:
            return self.tensor.__dlpack_device__()

    docs, queries = torch.from_numpy(rows(1, 30, 8)), torch.from_numpy(rows(2, 2, 8))
    assert not isinstance(adopted(Only(docs), "docs"), DeviceArray)
    found = pe.topk(Only(queries), Only(docs.double()), 3, backend="cuda")
    conformance.same(found, pe.topk(queries.numpy(), docs.numpy(), 3, backend="numpy"), "dlpack")
    with pytest.raises(TypeError, match=r"^docs must be an array of numbers; got a Only that is not one"):
        pe.topk(queries.numpy(), Only(docs.bfloat16()), 3)


def test_without_the_backend_nothing_is_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Interface(VALUES)
    monkeypatch.setattr(cuda_device, "missing", lambda: "no driver")
    assert adopted(there, "docs") is there
