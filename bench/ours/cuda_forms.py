"""The forms of the CUDA scans of dense vectors and of pages as contestants: those of `csrc/cuda/dense_topk.cu` and
`maxsim.cu`, and of their `_sm90`, of which a search takes what `pyengine.kernels.dense_sm90_plan` and
`maxsim_sm90_plan` say, by what this measures; float32 without tensor cores, and bits
(`pyengine.kernels.dense_forms`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import pyengine
from bench.ours import contestants
from bench.ours.contestants import Contestant, Search, Unavailable
from pyengine.backends.cuda import cuda_device
from pyengine.kernels import dense_forms, dense_sm90_plan

SM90 = 90  # as `cuda_device.Gpu` numbers compute capability 9.0


def in_form(built: Contestant, form: str) -> Contestant:
    """A contestant whose CUDA scans take that form, "sm_80", "sm_90" or "float32", where they have it, whatever else
    would be."""

    def prepare(docs: Any, metric: str, threads: int) -> Search:
        search = built.prepare(docs, metric, threads)
        if form == "sm_90" and cuda_device.driver(cuda_device.LIBRARY).capability(0) != SM90:
            raise Unavailable("the form sm_90 is of compute capability 9.0 alone")

        def run(queries: Any, k: int) -> Any:
            with dense_forms.float32_forced() if form == "float32" else dense_sm90_plan.forced(form):
                return search(queries, k)

        return run

    return replace(built, name=f"{built.name}-{form}", prepare=prepare)


def of_signs() -> Contestant:
    """`DenseIndex` of one bit a dimension and nothing else, for vectors of which that leaves nothing out."""
    built = contestants.index("float32", "cuda")

    def prepare(docs: Any, metric: str, threads: int) -> Search:
        if not (np.abs(docs) == np.abs(docs[:, :1])).all():
            raise Unavailable("one bit a dimension would change these vectors")
        contestants.require("cuda")
        index = pyengine.DenseIndex(docs.shape[1], metric=metric, store="binary", originals=None, backend="cuda")
        index.add(docs)
        return lambda queries, k: index.search(queries, k, num_threads=threads)

    return replace(built, name="cuda-binary", prepare=prepare, arithmetic="none", value_bytes=1 / 8)
