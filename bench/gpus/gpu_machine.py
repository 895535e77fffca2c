"""Which GPU a measurement was made on, and what it can do at best."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from bench.limits import machine
from bench.limits.machine import Machine
from bench.ours.contestants import Unavailable, module

PACKAGES = ("triton", "faiss-gpu", "cuvs-cu13", "cuvs-cu12", "cupy-cuda13x", "cupy-cuda12x", "flash-maxsim")
COPIED = 1 << 32  # bytes
SIDE = 8192  # of the matrices of the largest product
REPEATS = 10


@dataclass(frozen=True)
class Gpu(Machine):
    """A machine by its GPU: ``cpu`` is its name, ``cores`` how many multiprocessors it has, ``memory_gib`` its memory,
    ``isa`` its compute capability; ``host`` describes the rest."""

    driver: str = ""
    host: str = ""

    def describe(self) -> str:
        return f"{self.where}\nhost: {self.host}"

    @property
    def where(self) -> str:
        return (
            f"{self.date}, {self.cpu}, {self.cores} multiprocessors, {self.memory_gib} GiB, {self.isa}, "
            f"driver {self.driver}; {self.versions}; {self.commit}"
        )

    @property
    def capability(self) -> tuple[int, int]:
        return divmod(int(self.isa.removeprefix("sm_")), 10)

    @property
    def slug(self) -> str:
        return "-".join(re.findall(r"[a-z0-9]+", self.cpu.lower()))


@dataclass(frozen=True)
class GpuCeilings:
    """Rates per second: bytes of a copy on the device, read and written, and operations of matrix products."""

    copy: float
    operations: dict[str, float]  # by the type of what is multiplied
    threads: int = 1

    def floor(self, n_bytes: float, n_ops: float, arithmetic: str, isa: str = "") -> float | None:
        """The larger of the time to move the bytes and that of the operations; "none" has only bytes."""
        moving = n_bytes / self.copy
        if arithmetic == "none":
            return moving
        rate = self.operations.get(arithmetic)
        return None if rate is None else max(moving, n_ops / rate)

    def describe(self) -> str:
        products = ", ".join(f"{name} {rate / 1e12:,.0f}" for name, rate in self.operations.items())
        return f"measured ceilings: copy {self.copy / 1e9:,.0f} GB/s (read and written), products in Top/s: {products}"


def missing() -> str | None:
    """Why nothing can be measured here, in a sentence; None where it can."""
    try:
        torch = module("torch")
    except Unavailable as error:
        return f"bench.gpu needs torch: {error}"
    return None if torch.cuda.is_available() else "bench.gpu needs an NVIDIA GPU, and torch finds none on this machine"


def here() -> Gpu:
    torch = module("torch")
    about, host = torch.cuda.get_device_properties(0), machine.here()
    installed = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    capability = torch.cuda.get_device_capability(0)
    shared = {**dataclasses.asdict(host), "cpu": about.name, "cores": about.multi_processor_count}
    shared |= {"memory_gib": about.total_memory >> 30, "isa": "sm_{}{}".format(*capability)}
    shared["versions"] = f"{host.versions}, {installed}, CUDA {torch.version.cuda}"
    return Gpu(**shared, driver=_driver(), host=f"{host.cpu}, {host.cores} cores, {host.memory_gib} GiB, {host.isa}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def measure() -> GpuCeilings:
    """Copies and products by torch, on random data; float32 in full precision, without TF32."""
    torch = module("torch")
    source = torch.randint(-128, 128, (COPIED // 2,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * len(source) / _seconds(partial(target.copy_, source))
    del source, target
    a, b = torch.randn((2, SIDE, SIDE), device="cuda").unbind(0)
    rates = {}
    for name in ("float32", "bf16", "float16", "int8"):
        rate = _product_rate(name, a, b)
        if rate is not None:
            rates[name] = rate
    return GpuCeilings(copy, rates)


def _product_rate(name: str, a: Any, b: Any) -> float | None:
    """None for what this torch cannot multiply."""
    torch = module("torch")
    try:
        if name == "int8":
            left, right = ((each * 30).clamp(-127, 127).to(torch.int8) for each in (a, b))
            seconds = _seconds(lambda: torch._int_mm(left, right.T))
        else:
            dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}[name]
            left, right = a.to(dtype), b.to(dtype)
            seconds = _seconds(lambda: left @ right)
    except RuntimeError:
        return None
    return 2 * SIDE**3 / seconds


def _seconds(work: Callable[[], object]) -> float:
    """The median of a few calls, after two that warm up."""
    from bench.gpus.gpu_timing import GpuSamples

    samples = GpuSamples()
    for number in range(REPEATS + 2):
        samples.call(work, number)
    return float(np.median(samples.wall[2:]))
