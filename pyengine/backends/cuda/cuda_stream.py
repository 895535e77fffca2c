"""Documents that the GPU cannot hold pass through it in parts (`parts`), copied from pinned memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pyengine.backends.cuda import cuda_device
from pyengine.backends.cuda.cuda_device import Gpu
from pyengine.backends.shared import parts
from pyengine.backends.shared.parts import Footprint
from pyengine.problems.problem import Corpus, Problem
from pyengine.types import F32, Candidates

P = TypeVar("P", bound=Problem)


def cuts(docs: Corpus, taken: Footprint) -> list[slice] | None:
    """`parts.cuts` of documents, which take so much; None of those that are on a GPU."""
    return None if docs.device is not None else parts.cuts(taken, *_room(docs, taken))


def refusals(docs: Corpus, taken: Footprint) -> list[str]:
    """`parts.refusals` of documents, which take so much."""
    return parts.refusals(taken, *_room(docs, taken), whole=docs.device is not None)


def _room(docs: Corpus, taken: Footprint) -> tuple[int, int | None]:
    """The bytes that are lacking, and those that are free."""
    lacking = taken.lacking(lambda key: cuda_device.kept(docs, key))
    return lacking, cuda_device.free(docs) if lacking else None


def propose(
    problem: P,
    found: Sequence[slice] | None,
    fetch: Callable[[P, Gpu], object],
    scan: Callable[[P], Candidates],
    refine: Callable[[P, Candidates], F32],
) -> Candidates:
    """`parts.propose` by the CUDA kernels, or one scan where there are no parts; ``fetch`` copies what ``scan`` reads,
    by the feed of a GPU."""
    if found is None:
        return scan(problem)
    gpu = cuda_device.gpu_of(problem.docs)
    feed = cuda_device.feed_of(gpu)
    beside = gpu._replace(stream=feed.stream, feed=feed)

    def fetched(part: P) -> None:
        with feed.lock:
            fetch(part, beside)
            feed.wait()

    return parts.propose(problem, found, fetched, scan, refine)
