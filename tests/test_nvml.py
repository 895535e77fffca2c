"""That there is a GPU is known without CUDA being initialised, so that processes which are forked later may use it; and
what is said in those that may not."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyengine.backends.cuda import cuda_device
from pyengine.backends.shared import nvml
from tests import cuda_driver
from tests.cuda_driver import FakeDriver

FORKS = """
import os, sys
import numpy as np
import pyengine as pe
from pyengine.backends.cuda import cuda_device
from pyengine.backends.shared import nvml

def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def search(name):
    return pe.topk(docs[:2], docs, 3, backend=name)

def can():
    return {each.name: each.reason for each in pe.backends()}["cuda"]

cuda_device.LIBRARY, nvml.LIBRARY = sys.argv[1:]
docs = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if cuda_driver.compiler() is None:
        pytest.skip("no C++ compiler")
    target = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    return cuda_driver.build(cuda_driver.SOURCES / "fake_nvml.cpp", target)


@pytest.fixture
def told(library: Path, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """NVML, of two GPUs of 9.0, and to be told otherwise; at the end nobody holds it."""
    loaded = ctypes.CDLL(str(library))
    monkeypatch.setattr(nvml, "LIBRARY", str(library))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml._asked.cache_clear()
    yield loaded
    nvml._asked.cache_clear()
    loaded.fake_forget()
    assert loaded.fake_open() == 0


def asked(driver: FakeDriver) -> int | None:
    nvml._asked.cache_clear()
    return nvml.capability(driver.path, 13000)


def test_gpus_that_are_alike(told: ctypes.CDLL, emulated: FakeDriver) -> None:
    assert asked(emulated) == 90
    for parted in (-1, 0):  # most chips know no instances
        told.fake_tell(b"parted", parted)
        assert asked(emulated) == 90
    told.fake_tell(b"first", 8)
    assert asked(emulated) is None  # which of them CUDA takes first is not said


@pytest.mark.parametrize(
    ("name", "value"),
    [("nvmlInit_v2", 1), ("version", 12090), ("devices", 0), ("parted", 1), ("nvmlDeviceGetCount_v2", 1),
     ("nvmlDeviceGetCudaComputeCapability", 1)],
)  # fmt: skip
def test_what_it_cannot_tell_is_for_the_driver_to_say(
    name: str, value: int, told: ctypes.CDLL, emulated: FakeDriver
) -> None:
    told.fake_tell(name.encode(), value)
    assert asked(emulated) is None


@pytest.mark.parametrize(
    ("visible", "found"),
    [("0", 90), ("1,0", 90), (" 1 , 7", 90), ("2", None), ("", None), ("-1", None), ("GPU-1234", None), ("²", None)],
)
def test_gpus_that_are_visible(
    visible: str, found: int | None, told: ctypes.CDLL, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert asked(emulated) == found


def test_libraries_that_are_not_there(told: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvml.capability("libcuda-of-nobody.so.1") is None
    source = tmp_path / "old.cpp"
    source.write_text('extern "C" int nvmlInit_v2() { return 0; } extern "C" int nvmlShutdown() { return 0; }')
    monkeypatch.setattr(nvml, "LIBRARY", str(cuda_driver.build(source, tmp_path / "libnvidia-ml.so.1")))
    assert nvml.capability(cuda_device.LIBRARY) is None


def run(script: str, driver: FakeDriver, library: Path) -> list[str]:
    """The lines that a process of its own prints."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS + script, driver.path, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_fork_may_use_what_its_parent_has_only_asked_for(fake_driver: FakeDriver, library: Path) -> None:
    """`backends` and searches by "auto" of arrays of the host leave CUDA alone."""
    script = """
assert can() is None
assert search("auto").certified.all()
assert not cuda_device._drivers
print(forked(lambda: search("cuda")), forked(lambda: search("cuda")))
"""
    assert run(script, fake_driver, library) == ["0 0"]


SAID = (
    "failed: initialization error (CUDA error 3), as where a process was forked from one that had used CUDA: start it "
    "by 'spawn' or 'forkserver'"
)


def test_a_fork_of_a_process_that_has_used_it_is_told_so(fake_driver: FakeDriver, library: Path) -> None:
    """It says so, "auto" takes another backend, and the parent goes on."""
    script = """
search("cuda")
print(forked(lambda: print(can(), flush=True)))
print(forked(lambda: search("auto")))
print(forked(lambda: search("cuda")))
print(search("cuda").certified.all())
"""
    lines = run(script, fake_driver, library)
    assert lines[:3] == [f"cuDeviceGet {SAID}", "0", "0"]
    assert f"  cuda: cuDeviceGet {SAID}" in lines[4]
    assert lines[-2:] == ["1", "True"]


def test_a_fork_of_a_process_in_which_others_have_used_it(fake_driver: FakeDriver, library: Path) -> None:
    """As torch may have: that is known once the driver is needed."""
    script = """
import ctypes
ctypes.CDLL(sys.argv[1]).cuInit(0)
print(can(), forked(lambda: search("auto")), forked(lambda: search("cuda")))
"""
    lines = run(script, fake_driver, library)
    assert f"  cuda: CUDA backend unavailable: cuInit {SAID}" in lines[1]
    assert lines[-1] == "None 0 1"
