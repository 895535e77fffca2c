"""The two forms of the CUDA scans of dense vectors and of pages, `csrc/cuda/dense_topk.cu`, `maxsim.cu` and their
`_sm90`, as contestants: which of them a search takes is `pyengine.kernels.dense_sm90_plan`'s and `maxsim_sm90_plan`'s
to say, by what this measures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.ours.contestants import Contestant, Search, Unavailable
from pyengine.backends.cuda import cuda_device
from pyengine.kernels import dense_sm90_plan

SM90 = 90  # as `cuda_device.Gpu` numbers compute capability 9.0


def in_form(built: Contestant, form: str) -> Contestant:
    """A contestant whose CUDA scans take that form, where they have it, whatever was measured before."""

    def prepare(docs: Any, metric: str, threads: int) -> Search:
        search = built.prepare(docs, metric, threads)
        if form == "sm_90" and cuda_device.driver(cuda_device.LIBRARY).capability(0) != SM90:
            raise Unavailable("the form sm_90 is of compute capability 9.0 alone")

        def run(queries: Any, k: int) -> Any:
            with dense_sm90_plan.forced(form):
                return search(queries, k)

        return run

    return replace(built, name=f"{built.name}-{form}", prepare=prepare)
