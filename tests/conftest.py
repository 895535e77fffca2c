"""What the tests share: the backends and instruction sets of this machine, and poisoned memory."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import pyengine
from bench import cuda_compiled
from pyengine.backends.cpu import cpu_backend
from pyengine.backends.cuda import cuda_device
from pyengine.backends.shared import nvml
from pyengine.conformance import conformance_cases
from pyengine.indexes import segments
from pyengine.kernels import plan
from pyengine.refining import exact, exact_sparse
from tests import cuda_driver
from tests import interpreter as triton_interpreter
from tests.cuda_driver import FakeDriver
from tests.sparse_model import inverted

settings.register_profile("pyengine", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.register_profile("long", deadline=None, max_examples=3000)  # pytest --hypothesis-profile=long
settings.load_profile("pyengine")

INTERPRETED = triton_interpreter.choose()  # before anything imports triton
GOLDEN = Path(__file__).parent / "golden"
NATIVE = exact.native()
ISAS: list[str] = [] if NATIVE is None else list(NATIVE.isas())
STATUSES = pyengine.backends()


def _engines(family: str) -> list[tuple[str, str]]:
    """Every backend that can run here, and the instruction set it is to use: cpu comes once for each. Interpreted
    kernels are not among them: they take a second a search, and have tests of their own."""
    able = [each.name for each in pyengine.backends(family) if each.available]
    return [(name, isa) for name in able for isa in (ISAS if name == "cpu" else [""])]


def pytest_report_header() -> list[str]:
    absent = [f"{each.name} ({each.reason})" for each in STATUSES if not each.available]
    return [
        f"pyengine: backends {', '.join(each.name for each in STATUSES if each.available)}; "
        f"instruction sets {', '.join(ISAS) or 'none'}; not tested: {', '.join(absent) or 'nothing'}"
    ]


@contextmanager
def using_isa(isa: str) -> Iterator[None]:
    """Within the block, the extension uses this instruction set."""
    if NATIVE is None or not isa:
        yield
        return
    before = NATIVE.set_isa(isa)
    try:
        yield
    finally:
        NATIVE.set_isa(before)


@pytest.fixture(scope="module", params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine that the extension has kernels for."""
    with using_isa(request.param):
        yield request.param


def _named(engine: tuple[str, str]) -> str:
    return "-".join(filter(None, engine))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_small() -> Iterator[None]:
    """The backend ``cpu`` scans what tests have, however little that is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_backend, "SMALL", 0)
        yield


@pytest.fixture(scope="module", params=_engines("dense"), ids=_named)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of each backend that can run here; ``cpu`` once for each instruction set, and with as many threads as
    it is given, however little there is to do."""
    name, isa = request.param
    with using_isa(isa), pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "THREAD_OPERATIONS", 1)
        yield name


@pytest.fixture(scope="module", params=_engines("sparse"), ids=_named)
def sparse_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same of those for sparse rows."""
    name, isa = request.param
    with using_isa(isa):
        yield name


@pytest.fixture(scope="module")
def interpreter() -> Iterator[None]:
    """Triton's kernels run: on the GPU if there is one, else in the interpreter, with bfloat16 mended."""
    for package in ("torch", "triton"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setenv(triton_interpreter.VARIABLE, "1")
            triton_interpreter.mend_bfloat16(patch)
        yield


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    """An NVIDIA driver that runs the CUDA kernels on the host."""
    nvcc = cuda_compiled.nvcc()
    if NATIVE is None or not NATIVE.cuda_images() or nvcc is None or cuda_driver.compiler() is None:
        pytest.skip("the CUDA kernels are not built here: no nvcc 13.0, or no C++ compiler")
    options = [f"-I{folder}" for folder in (cuda_driver.SOURCES, cuda_driver.KERNELS, cuda_driver.headers(nvcc))]
    target = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    return FakeDriver(cuda_driver.build(cuda_driver.SOURCES / "fake_driver.cpp", target, *options))


@pytest.fixture
def emulated(fake_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """The backend ``cuda`` runs, on that driver; at the end nothing has gone wrong, and no memory is left."""
    fake_driver.forget()
    monkeypatch.setattr(cuda_device, "LIBRARY", fake_driver.path)
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-of-nobody.so.1")  # one that is here knows other GPUs
    yield fake_driver
    if fake_driver.allocated:
        gc.collect()
    assert not fake_driver.trouble
    assert fake_driver.allocated == 0


@pytest.fixture(params=["native", "torch"])
def maxsim_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """`pyengine.torch.maxsim` takes the extension, or what other devices and float64 take, in small blocks."""
    from pyengine.training import torch_blocks, torch_maxsim

    if request.param == "torch":
        monkeypatch.setattr(torch_maxsim, "_native", lambda tokens: None)
        monkeypatch.setattr(torch_blocks, "LANE_PRODUCTS", 300)
        monkeypatch.setattr(torch_blocks, "CHOICES", 50)
    monkeypatch.setattr(torch_blocks, "PRODUCTS", 300)
    return str(request.param)


@pytest.fixture
def folder(kind: Any, tmp_path: Path) -> Path:
    """A saved index of a kind of `tests.storage_cases`."""
    kind.made().save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(params=[name for name in conformance_cases.stores() if name != "matrix"])
def store(request: pytest.FixtureRequest) -> str:
    """Each store of `DenseIndex` that can be made here."""
    return str(request.param)


@pytest.fixture(params=sorted(GOLDEN.glob("dense_*.npz")), ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arrays of each dense golden file: see golden/README.md."""
    with np.load(request.param) as file:
        return dict(file)


def _poisoned(make: Callable[..., Any], fill: Callable[[Any], object]) -> Callable[..., Any]:
    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        array = make(*args, **kwargs)
        fill(array)
        return array

    return made


def _fill_numpy(array: np.ndarray) -> None:
    kind = array.dtype.kind
    if kind in "fc":
        array.fill(np.nan)
    elif kind in "iu":
        array.fill(max(-999, int(np.iinfo(array.dtype).min)) if kind == "i" else 99)


def _fill_torch(tensor: Any) -> None:
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype in (sys.modules["torch"].int32, sys.modules["torch"].int64):
        tensor.fill_(-999)


@pytest.fixture(scope="module")
def poison() -> Iterator[None]:
    """``np.empty`` and ``torch.empty`` give arrays full of NaN or -999, so that an output which is never written
    cannot pass for zeros."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like"):
            patch.setattr(np, name, _poisoned(getattr(np, name), _fill_numpy))
            if "torch" in sys.modules:
                torch = sys.modules["torch"]
                patch.setattr(torch, name, _poisoned(getattr(torch, name), _fill_torch))
        yield


@pytest.fixture(scope="module")
def small_segments() -> Iterator[None]:
    """A few rows of a `SparseIndex` make a segment, also where the extension cannot make any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "LEAST", 5)
        if exact_sparse.native() is None:
            patch.setattr(segments, "available", lambda: True)
            patch.setattr(exact_sparse, "build", inverted)
        yield
