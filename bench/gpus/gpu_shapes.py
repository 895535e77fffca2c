"""The workloads of the GPU, what each is to reach, and about how long its data takes to make."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from bench.workloads.shapes import MILLION, Heat, Workload, heats
from bench.workloads.sparse_shapes import LIGHT, together
from bench.workloads.token_shapes import Lengths, TokenWorkload

ONE = Workload(MILLION, n_queries=1, metric="dot")
CERTIFIED, WIDE = replace(ONE, n_queries=1024), replace(ONE, n_queries=4096)
FEW = Workload(5 * MILLION, n_queries=64, k=128, metric="dot")
MANY, LARGE = replace(FEW, k=8192), replace(FEW, n_queries=1, k=100)
LARGEST = replace(LARGE, n_docs=20 * MILLION)
SIGN, SIGNS = (replace(ONE, n_docs=5 * MILLION, n_queries=count, data="signs") for count in (1, 1024))

TEXTS = TokenWorkload(10_000, lengths=Lengths(300, 300, 300))
PAGES = TokenWorkload(1_000, lengths=Lengths(1024, 1024, 1024), query_tokens=1024)
STEPS = tuple(
    TokenWorkload(count, n_queries=count, k=0, lengths=Lengths(length, length, length))
    for count, length in ((32, 180), (32, 1024))
)
SPARSE = together(LIGHT, 500)
SPLADE = replace(SPARSE, n_docs=8_800_000)

TARGETS: dict[Workload, str] = {
    FEW: "85 % of the copy rate (beyond: 92 %), reading fp16",
    MANY: "75 % of the copy rate, reading fp16",
    **dict.fromkeys((ONE, LARGE, LARGEST), "90 % of the copy rate; int8 in half the time of fp16"),
    WIDE: "75 % of the matrix product's rate, selection included (beyond: 85 %)",
    CERTIFIED: "8 times as fast as float32 matmul and topk (beyond: 12)",
    TEXTS: "5 % above the memory floor, top k included; int8 below the fp16 floor",
    PAGES: "1.4 times the floor of the products (beyond: 1.2)",
    **dict.fromkeys((SIGN, SIGNS), "80 % of the copy rate, reading a bit a dimension; an eighth of the time of int8"),
    **dict.fromkeys(STEPS, "5 times as fast as PyTorch, in a hundredth of its memory"),
    SPLADE: "0.6 ms a query (beyond: 0.3)",
}


class GpuFamily(NamedTuple):
    """``name`` is that of the conformance cases, too; ``rate`` bytes of a corpus that are made and indexed in a second,
    by a cautious guess for 16 cores."""

    name: str
    heats: tuple[Heat, ...]
    quick: tuple[Heat, ...]
    rate: float


FAMILIES = {
    family.name: family
    for family in (
        GpuFamily(
            "dense",
            (
                *heats("gpu-dense", ONE, CERTIFIED, WIDE),
                *heats("gpu-dense", FEW, MANY, LARGE, LARGEST),
                *heats("gpu-dense", SIGN, SIGNS),
            ),
            heats("gpu-dense", ONE, CERTIFIED),
            4e8,
        ),
        GpuFamily(
            "maxsim",
            (*heats("gpu-maxsim", TEXTS, PAGES), *heats("gpu-training", *STEPS)),
            (*heats("gpu-maxsim", TEXTS), *heats("gpu-training", STEPS[0])),
            1e8,
        ),
        GpuFamily(
            "sparse",
            heats("gpu-sparse", SPARSE, SPLADE),
            heats("gpu-sparse", replace(SPARSE, n_docs=200_000)),
            5e7,
        ),
    )
}
