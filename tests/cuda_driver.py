"""A libcuda.so.1 without a GPU (`tests/cuda/fake_driver.cpp`): compiled once, and told what to fail at."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "cuda"
KERNELS = Path(__file__).parents[1] / "csrc" / "cuda"
OPTIONS = (
    "-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror",
    "-Wno-unknown-pragmas",
)  # fmt: skip


def compiler() -> str | None:
    """The C++ compiler, None where there is none."""
    return shutil.which(os.environ.get("CXX", "c++"))


def headers(of: str) -> str:
    """The folder of cuda.h: the fake is compiled against the real declarations."""
    said = subprocess.run([of, "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull], capture_output=True, text=True)
    found: str = re.findall(r'INCLUDES="-I([^"]+)"', said.stderr)[0]
    return found


def build(source: Path, target: Path, *options: str) -> Path:
    """Compile a shared library."""
    command = [str(compiler()), *OPTIONS, *options, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


class FakeDriver:
    """The library at ``path``, in this process."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.library = ctypes.CDLL(self.path)
        for name in ("fake_log", "fake_trouble"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.fake_allocated.restype = ctypes.c_int64

    def tell(self, **settings: int) -> None:
        """What the driver is to say of itself; or, by the name of a function, the error that it is to return."""
        for name, value in settings.items():
            self.library.fake_tell(name.encode(), value)

    def forget(self) -> None:
        self.library.fake_forget()

    @property
    def log(self) -> list[str]:
        """The launches: "tighten grid 5 1 threads 512 shared 0 stream 0"."""
        text: bytes = self.library.fake_log()
        return text.decode().splitlines()

    @property
    def trouble(self) -> str:
        """What went wrong in a kernel, or with memory; empty where nothing did."""
        text: bytes = self.library.fake_trouble()
        return text.decode()

    @property
    def contexts(self) -> int:
        """How many devices hold their context."""
        count: int = self.library.fake_contexts()
        return count

    @property
    def allocated(self) -> int:
        """How many allocations there are."""
        count: int = self.library.fake_allocated()
        return count
