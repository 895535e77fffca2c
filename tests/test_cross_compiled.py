"""The kernel tables against plain C++ loops: on this machine, and for AArch64 under an emulator where both are there.

Debian's packages g++-aarch64-linux-gnu and qemu-user bring the second.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "tests/native").glob("*.cpp")), *sorted((ROOT / "csrc/cpu").glob("*.cpp"))]

FLAGS = ["-std=c++17", "-O2", "-static", "-ffp-contract=off", "-fno-math-errno", "-DPYENGINE_TESTING", f"-I{ROOT}/csrc"]


@pytest.mark.parametrize(
    ("compiler", "emulator", "expected"),
    [("g++", [], "baseline: ok"), ("aarch64-linux-gnu-g++", ["qemu-aarch64"], "neon: ok")],
    ids=["host", "aarch64"],
)
def test_kernels_match_plain_loops(compiler: str, emulator: list[str], expected: str, tmp_path: Path) -> None:
    absent = [tool for tool in (compiler, *emulator) if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    program = tmp_path / "check"
    subprocess.run([compiler, *FLAGS, *map(str, SOURCES), "-o", str(program)], check=True)
    ran = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert expected in ran.stdout
