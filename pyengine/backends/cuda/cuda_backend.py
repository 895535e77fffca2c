"""CUDA C++ kernels propose, refine and select on an NVIDIA GPU, with no torch, no triton, only the driver: dense
search. `cuda_maxsim_backend`, `cuda_sparse_backend` and `cuda_sliced_backend` are the other families."""

from __future__ import annotations

from collections.abc import Iterator

from pyengine.backends.base import score_all
from pyengine.backends.cuda import (
    cuda_between,
    cuda_both,
    cuda_dense,
    cuda_device,
    cuda_documents,
    cuda_products,
    cuda_stream,
)
from pyengine.backends.cuda.cuda_kernels import PLANNED
from pyengine.backends.shared.counts import too_many
from pyengine.backends.shared.on_gpu import DenseOnGpu
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.inputs.device_arrays import DeviceArray
from pyengine.kernels import dense_sm90_plan
from pyengine.kernels.dense_plan import MOST_DIMS
from pyengine.problems.problem import DenseProblem
from pyengine.refining import exact
from pyengine.types import F32, I64, Attempt, Candidates, TopK


class CudaBackend(DenseOnGpu):
    """Products of int8 codes, of bits, or of documents as they are, with the bounds that `dense_terms` derives; what
    they leave is refined and selected on the GPU. The plans are those of the backend ``triton``, and the kernels its
    counterparts in CUDA C++ (`csrc/cuda`).

    Documents are copied to the GPU, with int8 codes of float32, and stay there as long as their index does not change;
    where it cannot hold them all, they pass through it in parts, and are refined on the host.
    With ``precision="fast"`` scores are off by at most half the distance of these bounds.
    """

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: DenseProblem) -> list[str]:
        docs, dims = problem.docs, problem.dims
        reasons = cuda_device.unusable(docs)
        if dims > MOST_DIMS:
            reasons.append(f"its kernels take at most {MOST_DIMS:,} dimensions, and {dims:,} are scored")
        reasons += too_many(len(docs))
        return reasons or cuda_stream.refusals(docs, cuda_documents.footprint(problem))

    def _parts(self, problem: DenseProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_documents.footprint(problem))

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        return cuda_stream.propose(
            problem, self._parts(problem), cuda_documents.scanned, lambda part: cuda_dense.propose(part, width),
            exact.refine,
        )  # fmt: skip

    def attempt(self, problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
        return None if self._parts(problem) is not None else cuda_dense.attempt(problem, asked, width)

    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_dense.refine(problem, candidates)

    def within(self, problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
        return super().within(problem) if self._parts(problem) is not None else cuda_between.within(problem)

    def before(self, problem: DenseProblem, targets: I64, rank: F32) -> I64 | None:
        return None if self._parts(problem) is not None else cuda_between.before(problem, targets, rank)

    def both(self, forth: DenseProblem, back: DenseProblem) -> tuple[Attempt, Attempt] | None:
        if any(self._parts(each) is not None for each in (forth, back)):
            return None
        return cuda_both.attempt(forth, back)

    def scan(self, problem: DenseProblem) -> TopK:
        if isinstance(problem.docs.rows, DeviceArray):
            return score_all(problem, self)
        return cuda_dense.score_everything(problem)

    def describe(self, problem: DenseProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, _ = super().describe(problem)
        gpu = cuda_device.gpu_of(problem.docs)
        product = cuda_documents.product_of(problem, gpu)
        plan = cuda_dense.plan(problem, gpu, self.first_width(problem), product.kind)
        facts |= {
            "store": f"{problem.docs.store}, scanned as {product.kind}: {product.why}",
            "reads": f"{plan.bytes_read:,} bytes or more",
            "computes": f"{plan.operations:,} operations",
            "tile": str(plan.tile),
        }
        if cuda_dense.between_limits(problem):
            facts["form"] = "sm_80: the one that counts what is certainly above the mark, and does not list it"
        elif product.kind in PLANNED:
            form, why = dense_sm90_plan.form(gpu.device.capability, gpu.chip, PLANNED[product.kind], plan.tile, 0, 0)
            facts["form"] = f"{form}: {why}"
        facts["places"] = f"{plan.capacity:,} for each query"
        return facts | part_facts(self._parts(problem)), plan.rejected | cuda_products.rejected(product, problem.docs)
