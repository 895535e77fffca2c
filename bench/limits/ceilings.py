"""What this machine can do at best, measured: the yardstick of every speed."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.limits import products
from bench.limits.products import fastest
from bench.ours.contestants import ISAS, Unavailable, on_isa
from pyengine.refining import exact

PEAKS = 7  # runs of the loop over registers, of which the best counts
READ_SIZES = (1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 31)
"""Working sets to read: some machines hold all but the last in a cache, none that."""


class Limits(Protocol):
    """What a machine can do at best, with so many threads."""

    @property
    def threads(self) -> int: ...

    def floor(self, n_bytes: float, n_ops: float, arithmetic: str, isa: str = "") -> float | None:
        """The least seconds that these bytes and operations take."""

    def describe(self) -> str: ...


@dataclass(frozen=True)
class Ceilings:
    """Rates per second, with as many threads as the contestants have. ``reads`` has (bytes, bytes per second) for
    working sets of rising size, in huge pages; ``small_page_read`` is the last of them in 4 KiB pages. ``int8_ops``
    is by instruction set, and empty where nothing here can measure it; products of float32 and bf16 are those of the
    libraries at hand, which choose their instructions themselves, and in ``by_isa`` what they do with others: kind,
    instruction set, rate."""

    threads: int
    reads: tuple[tuple[int, float], ...]
    small_page_read: float
    float32_ops: float
    int8_ops: dict[str, float]
    isa: str  # the instruction set that is used unless another is forced
    copies: tuple[tuple[int, float], ...] = ()  # (bytes, bytes read and written per second)
    bf16_ops: float | None = None  # None where torch is not here, or does not multiply it
    by_isa: dict[str, dict[str, float]] = field(default_factory=dict)

    def floor(self, n_bytes: float, n_ops: float, arithmetic: str, isa: str = "") -> float | None:
        """The least seconds in which the bytes can be read and the operations done: the larger of the two. For
        ``arithmetic`` "none" that is reading alone."""
        reading = n_bytes / self.read_rate(n_bytes)
        if arithmetic == "none":
            return reading
        rates = {"int8": self.int8_ops.get(isa or self.isa), "bf16": self.bf16_ops}
        rate = rates.get(arithmetic, self.float32_ops)
        return None if rate is None else max(reading, n_ops / rate)

    def read_rate(self, n_bytes: float) -> float:
        """Bytes per second, read from a working set of about that size (the next larger one that was measured)."""
        return next((rate for size, rate in self.reads if size >= n_bytes), self.reads[-1][1])

    def describe(self) -> str:
        reads = ", ".join(f"{rate / 1e9:.1f} GB/s of {size >> 20} MiB" for size, rate in self.reads)
        int8 = _each(self.int8_ops) or "not measured"
        others = {kind: f" ({_each(rates)})" for kind, rates in self.by_isa.items() if rates}
        copies = ", ".join(f"{rate / 1e9:.1f} of {size >> 20} MiB" for size, rate in self.copies) or "not measured"
        bf16 = "not measured" if self.bf16_ops is None else f"{self.bf16_ops / 1e9:,.0f}"
        return (
            f"{self.threads} thread(s): copies in GB/s read and written: {copies}; "
            f"reads {reads} ({self.small_page_read / 1e9:.1f} in 4 KiB pages), "
            f"float32 GEMM {self.float32_ops / 1e9:,.0f} Gop/s{others.get('float32', '')}, "
            f"bf16 {bf16}{others.get('bf16', '')}, int8 products in Gop/s: {int8}"
        )


def _each(rates: dict[str, float]) -> str:
    return ", ".join(f"{isa} {rate / 1e9:,.0f}" for isa, rate in rates.items())


def measure(threads: int, sizes: tuple[int, ...] = READ_SIZES) -> Ceilings:
    """The ceilings for that many threads; the last of the ``sizes`` should be well beyond the caches."""
    rates = [(size, *_bandwidths(threads, size)) for size in sizes]
    reads, copies = (tuple((size, found[at]) for size, *found in rates) for at in (0, 1))
    with ThreadPoolExecutor(threads) as pool:
        small = _read_rate(pool, threads, _paged(sizes[-1], huge=False))
    kernels = exact.native()
    isa = "" if kernels is None else str(kernels.isa())
    by_isa = {kind: products.rates(kind, threads) for kind in products.KINDS}
    float32, bf16 = (max(rates.values(), default=None) for rates in by_isa.values())
    assert float32 is not None  # NumPy is always there
    return Ceilings(threads, reads, small, float32, _int8_rates(threads), isa, copies, bf16, by_isa)


def _bandwidths(threads: int, n_bytes: int) -> tuple[float, float]:
    """Bytes read per second, and bytes read and written by a copy, of a working set of that size. Reading is NumPy's
    SIMD maximum, or the extension's own loop where that is faster (it has the pages that the C library gives it, which
    are seldom huge)."""
    kernels = exact.native()
    own = 0.0 if kernels is None else float(kernels.read_bandwidth(n_bytes, threads))  # before there is a second array
    numbers = _paged(n_bytes, huge=True)
    with ThreadPoolExecutor(threads) as pool:
        read = _read_rate(pool, threads, numbers)
        source, target = np.split(numbers, 2)
        pairs = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
        copy = n_bytes / fastest(lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)))
    return max(own, read), copy


def _read_rate(pool: ThreadPoolExecutor, threads: int, numbers: NDArray[np.int32]) -> float:
    """By NumPy's maximum over a slice per thread: the ufunc releases the GIL."""
    slices = np.array_split(numbers, threads)
    return numbers.nbytes / fastest(lambda: list(pool.map(np.max, slices)))


def _paged(n_bytes: int, huge: bool) -> NDArray[np.int32]:
    """Memory of that size, written once, in pages of the kind that was asked for where the system lets one ask."""
    memory: Any = mmap.mmap(-1, n_bytes)
    advice = getattr(mmap, "MADV_HUGEPAGE" if huge else "MADV_NOHUGEPAGE", None)
    if advice is not None:
        with suppress(OSError):  # of a kernel without transparent huge pages: these are the pages there are
            memory.madvise(advice)
    numbers = np.frombuffer(memory, np.int32)
    numbers.fill(1)
    return numbers


def _int8_rates(threads: int) -> dict[str, float]:
    """Of every instruction set that this machine has. One that is emulated is not: it would take minutes."""
    kernels = exact.native()
    rates: dict[str, float] = {}
    for isa in ISAS if kernels is not None else ():
        try:
            with on_isa(isa):
                rates[isa] = max(float(kernels.peak_int8(threads)) for _ in range(PEAKS))  # type: ignore[union-attr]
        except Unavailable:
            continue
    return rates
