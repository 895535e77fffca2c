"""Named lists of heats."""

from __future__ import annotations

from dataclasses import replace

from bench.workloads.shapes import BASE, DENSE, LARGE, Heat, heats
from bench.workloads.shapes import QUICK as DENSE_QUICK
from bench.workloads.sparse_shapes import APART, HEAVY, LIGHT, SPARSE, together
from bench.workloads.sparse_shapes import QUICK as SPARSE_QUICK
from bench.workloads.token_shapes import MAXSIM, REAL, B, C, E
from bench.workloads.token_shapes import QUICK as MAXSIM_QUICK

LARGE_VECTORS = (
    "pyengine-int8",
    "pyengine-float32",
    "pyengine-topk",
    "faiss",
    "torch",
    "numpy",
    "sentence-transformers",
)
TOKENS = ("pyengine-int8", "pyengine-topk", "colbert-ai", "maxsim-cpu", "pylate", "torch-einsum")
POSTINGS = ("pyengine-float32", "pyengine-float32+disk", "sindi", "splade-index")
README: tuple[Heat, ...] = (
    Heat("search", (replace(LARGE, n_queries=1),), racing=LARGE_VECTORS),
    *heats("search", replace(BASE, n_queries=1)),
    *heats("search", *(replace(BASE, k=k) for k in (10, 100, 1000)), replace(BASE, n_queries=1024)),
    *(Heat("maxsim", (each,), racing=TOKENS) for each in (C, B, REAL)),
    Heat("maxsim", E[:1], racing=TOKENS[:3], once=True),  # the others take a minute and a half for one call each
    *(Heat("sparse", (each,), racing=POSTINGS) for each in (LIGHT, together(LIGHT), HEAVY, together(HEAVY))),
    Heat("sparse", (replace(LIGHT, k=1000),), racing=POSTINGS),
    Heat("postings", (together(LIGHT, APART),), racing=POSTINGS),
)
"""What the tables of the README show."""

PRESETS: dict[str, tuple[Heat, ...]] = {
    "quick": DENSE_QUICK + MAXSIM_QUICK + SPARSE_QUICK,
    "readme": README,
    "paper": DENSE + MAXSIM + SPARSE,
    "dense": DENSE,
    "maxsim": MAXSIM,
    "sparse": SPARSE,
}
SECONDS = {"quick": 0.2, "readme": 3.5}
"""For the rounds of a workload, where it is not 10."""
