"""`bench/gpu.sh`: what is built before the measuring, by a cmake and a python that only say what they are asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "gpu.sh"
CMAKE = """#!/bin/sh
case "$*" in
*PYENGINE_CUDA=ON*) echo "built with kernels" >> "$SAID"; exit $WITH ;;
*PYENGINE_CUDA=OFF*) echo "built without" >> "$SAID"; exit $WITHOUT ;;
esac
"""
PYTHON = """#!/bin/sh
case "$*" in
*cuda_images*) exit $THERE ;;
*bench.gpu*) echo "measured: $*" >> "$SAID" ;;
esac
"""


@pytest.mark.parametrize(
    ("fails", "built"),
    [
        ((0, 1, 1), ["built with kernels"]),
        ((1, 0, 0), ["built with kernels"]),  # those that are there stay
        ((1, 1, 0), ["built with kernels", "built without"]),
        ((1, 1, 1), ["built with kernels", "built without"]),
    ],
)
def test_what_is_built(fails: tuple[int, int, int], built: list[str], tmp_path: Path) -> None:
    for name, text in (("cmake", CMAKE), ("py", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    told = dict(zip(("WITH", "THERE", "WITHOUT"), map(str, fails)), SAID=str(said), PYTHON="py")
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    subprocess.run([str(SCRIPT), "--quick"], check=True, env={**os.environ, **told, "PATH": path}, capture_output=True)
    assert said.read_text().splitlines() == [*built, "measured: -m bench.gpu --quick"]
