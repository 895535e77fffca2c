"""A GPU that is made up, and its times, for the tests of `bench.gpu`."""

from __future__ import annotations

from bench.gpus.gpu_machine import Gpu, GpuCeilings
from bench.racing.race import Settings
from bench.racing.timing import Samples

CEILINGS = GpuCeilings(1e12, {"float32": 1e13, "bf16": 1e14, "float16": 1e14, "int8": 2e14})
MACHINE = Gpu(
    "2026-01-01", "Made-up GPU", 1, 1, "sm_90", "made up", "abc", "", driver="1.2", host="no machine: a test"
)  # fmt: skip
SETTINGS = Settings(CEILINGS, rounds=3, seconds=5.0)


def made_up(seconds: float) -> Samples:
    return Samples([seconds] * 3, [0.0] * 3, [0, 1, 2])
