"""CUDA C++ kernels propose, refine and select on an NVIDIA GPU: no torch, no triton, only the driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pyengine.backends.base import Backend, MaxSimBackend, SlicedBackend, SparseBackend, score_all
from pyengine.backends.cuda import (
    cuda_between,
    cuda_both,
    cuda_dense,
    cuda_device,
    cuda_documents,
    cuda_maxsim,
    cuda_products,
    cuda_sliced,
    cuda_sparse,
    cuda_stream,
    cuda_tokens,
)
from pyengine.backends.cuda.cuda_kernels import PLANNED
from pyengine.backends.shared.counts import too_many
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.shared.token_terms import SCANNED
from pyengine.backends.shared.window_queries import MOST_TERMS
from pyengine.inputs.device_arrays import DeviceArray
from pyengine.kernels import dense_sm90_plan
from pyengine.kernels.dense_plan import MOST_DIMS, first_places
from pyengine.problems.problem import DenseProblem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact, exact_maxsim, exact_sliced, exact_sparse
from pyengine.types import F32, I64, Attempt, Candidates, TopK

MOST_TOKEN_DIMS = 1 << 16  # sums of int8 products stay in int32
MOST_TOKENS = 1 << 14  # of a query, where its maxima are kept in shared memory


class CudaBackend(Backend):
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

    def checks_finite(self, problem: DenseProblem) -> bool:
        some = problem.n_queries > 0 and len(problem.docs) > 0
        return some and problem.dims == problem.docs.dim  # then the norms show it

    def first_width(self, problem: DenseProblem) -> int:
        return first_places(problem.k)

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

    def lasting(self, problem: DenseProblem) -> DenseProblem:
        """Documents that come with one call are copied to the GPU once for it."""
        docs = problem.docs
        return problem if docs.cache is not None else replace(problem, docs=replace(docs, cache={}))

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


class CudaMaxSim(MaxSimBackend):
    """Late interaction by products of int8 codes of tokens, with the bounds that `kernels/maxsim_topk.py` derives;
    refined in float64 by `csrc/cuda/maxsim_refine.cu`. Documents are copied to the GPU once: their codes, and the
    vectors that define the scores. Tokens of few bits stay so, and are decoded as they are read. What the GPU cannot
    hold passes through it in parts, and is refined on the host.

    With ``precision="fast"`` scores are off by at most these bounds. "softmax" is bounded by "mean", and refined on the
    host; "pooled" and "aligned", which no maxima bound, are scored there throughout.
    """

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: MaxSimProblem) -> list[str]:
        docs = problem.docs
        reasons = super().refusals(problem) + cuda_device.unusable(docs)
        if reasons:
            return reasons
        if docs.dim > MOST_TOKEN_DIMS:
            reasons.append(f"its kernels take at most {MOST_TOKEN_DIMS:,} dimensions, and {docs.dim:,} are scored")
        reasons += too_many(len(docs))
        longest = int(np.diff(problem.queries.offsets).max(initial=0))
        most = min(MOST_TOKENS, cuda_maxsim.most_tokens(cuda_device.gpu_of(docs)))
        if longest > most and (docs.dim > 128 or problem.reduce == "symmetric"):
            reasons.append(
                f"its kernels take queries of at most {most:,} tokens where these have more than 128 "
                f"dimensions, or both sides are summed, and one has {longest:,}"
            )
        return reasons or cuda_stream.refusals(docs, cuda_tokens.footprint(problem))

    def _parts(self, problem: MaxSimProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_tokens.footprint(problem))

    def readied(self, problem: MaxSimProblem) -> MaxSimProblem:
        """Documents that come with one search are copied to the GPU once for it."""
        docs = problem.docs
        return problem if docs.cache is not None else replace(problem, docs=replace(docs, cache={}))

    def first_width(self, problem: MaxSimProblem) -> int:
        return 2 * problem.k + 256

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        if problem.upper().reduce not in SCANNED or not _some(problem):
            return super().propose(problem, width)
        return cuda_stream.propose(
            problem, self._parts(problem), cuda_tokens.mirror, lambda part: cuda_maxsim.propose(part.upper(), width),
            exact_maxsim.refine,
        )  # fmt: skip

    def attempt(self, problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt | None:
        if problem.reduce not in SCANNED or not _some(problem):
            return None
        return None if self._parts(problem) is not None else cuda_maxsim.attempt(problem, asked, width)

    def refine(self, problem: MaxSimProblem, candidates: Candidates) -> F32:
        if problem.reduce not in SCANNED or not len(candidates.rows) or self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_maxsim.refine(problem, candidates)

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        upper = problem.upper()
        if upper.reduce not in SCANNED or not _some(problem):
            return super().describe(problem)
        gpu, places = cuda_device.gpu_of(problem.docs), cuda_maxsim.places(upper, self.first_width(problem))
        plan, (form, why) = cuda_maxsim.plan(upper, gpu), cuda_maxsim.form(upper, gpu)
        facts = {
            "store": f"{problem.docs.store}, scanned as {plan.form}",
            "tile": f"query tokens by document tokens: {plan.tile}",
            "form": f"{form}: {why}",
            "places": f"{places:,} for each query",
            "reads": f"{plan.bytes_read:,} bytes or more",
            "computes": f"{plan.operations:,} operations",
        }
        facts |= {} if upper is problem else {"bounded by": upper.reduce}
        return facts | part_facts(self._parts(problem)), plan.rejected


class CudaSparse(SparseBackend):
    """Sparse rows: integer sums over postings in shared memory, a window of documents and a query at a time, with the
    bound that `window_queries` derives, which is how far the estimates of ``precision="fast"`` are off. Documents are
    copied to the GPU, as they are and as postings, and stay there as long as their index does not change; where it
    cannot hold them all, they pass through it in parts, and are refined on the host."""

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: SparseProblem) -> list[str]:
        docs, longest = problem.docs, int(problem.queries.lengths.max(initial=0))
        reasons = super().refusals(problem) + cuda_device.unusable(docs) + too_many(len(docs))
        if longest > MOST_TERMS:
            reasons.append(f"its kernels take queries of at most {MOST_TERMS:,} terms, and one has {longest:,}")
        return reasons or cuda_stream.refusals(docs, cuda_sparse.footprint(problem))

    def _parts(self, problem: SparseProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_sparse.footprint(problem))

    def first_width(self, problem: SparseProblem) -> int:
        return 8 * problem.k

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        return cuda_stream.propose(
            problem, self._parts(problem), lambda part, gpu: cuda_sparse.windows_of(part.docs, gpu),
            lambda part: cuda_sparse.propose(part, width), exact_sparse.refine,
        )  # fmt: skip

    def attempt(self, problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt | None:
        if problem.n_queries == 0 or self._parts(problem) is not None:
            return None
        return cuda_sparse.attempt(problem, asked, width)

    def refine(self, problem: SparseProblem, candidates: Candidates) -> F32:
        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_sparse.refine(problem, candidates)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, parts = super().describe(problem)[0], self._parts(problem)
        return facts | (cuda_sparse.describe(problem) if parts is None else part_facts(parts)), {}


class CudaSliced(SlicedBackend):
    """Sliced vectors: the scan of sparse rows, over the terms that positions and indices are, with the bound that
    `window_queries` derives, which is how far the estimates of ``precision="fast"`` are off. Documents are copied to
    the GPU, as they are and as postings; where it cannot hold them all, they pass through it in parts, and are refined
    on the host."""

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: SlicedProblem) -> list[str]:
        docs = problem.docs
        reasons = super().refusals(problem) + cuda_device.unusable(docs) + too_many(len(docs))
        if docs.dim > MOST_TERMS:
            reasons.append(f"its kernels take at most {MOST_TERMS:,} dimensions, and {docs.dim:,} are scored")
        return reasons or cuda_stream.refusals(docs, cuda_sliced.footprint(problem))

    def _parts(self, problem: SlicedProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_sliced.footprint(problem))

    def first_width(self, problem: SlicedProblem) -> int:
        return 8 * problem.k

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        return cuda_stream.propose(
            problem, self._parts(problem), lambda part, gpu: cuda_sliced.windows_of(part.docs, gpu),
            lambda part: cuda_sliced.propose(part, width), exact_sliced.refine,
        )  # fmt: skip

    def attempt(self, problem: SlicedProblem, asked: SlicedProblem, width: int) -> Attempt | None:
        if problem.n_queries == 0 or self._parts(problem) is not None:
            return None
        return cuda_sliced.attempt(problem, asked, width)

    def refine(self, problem: SlicedProblem, candidates: Candidates) -> F32:
        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_sliced.refine(problem, candidates)

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, parts = super().describe(problem)[0], self._parts(problem)
        return facts | (cuda_sliced.describe(problem) if parts is None else part_facts(parts)), {}


def _some(problem: MaxSimProblem) -> bool:
    return problem.n_queries > 0 and len(problem.docs) > 0
