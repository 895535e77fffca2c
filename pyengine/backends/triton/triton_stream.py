"""Documents that the GPU cannot hold pass through it in parts (`parts`), each copied on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch

from pyengine.backends.shared import parts
from pyengine.backends.shared.parts import Footprint
from pyengine.backends.triton import triton_device
from pyengine.problems.problem import Corpus, Problem
from pyengine.types import F32, Candidates

P = TypeVar("P", bound=Problem)


def cuts(docs: Corpus, taken: Footprint) -> list[slice] | None:
    """`parts.cuts` of documents, which take so much; None of those that are on a GPU."""
    return None if docs.device is not None else parts.cuts(taken, *_room(docs, taken))


def refusals(docs: Corpus, taken: Footprint) -> list[str]:
    """`parts.refusals` of documents, which take so much; none of those that are on a GPU."""
    return [] if docs.device is not None else parts.refusals(taken, *_room(docs, taken))


def _room(docs: Corpus, taken: Footprint) -> tuple[int, int | None]:
    """The bytes that are lacking, and those that are free."""
    lacking = taken.lacking(lambda key: triton_device.kept(docs, key))
    return lacking, triton_device.free(docs) if lacking else None


def propose(
    problem: P,
    found: Sequence[slice] | None,
    fetch: Callable[[P], object],
    scan: Callable[[P], Candidates],
    refine: Callable[[P, Candidates], F32],
) -> Candidates:
    """`parts.propose` by the Triton kernels, or one scan where there are no parts; ``fetch`` copies what ``scan``
    reads, and waits for it."""
    if found is None:
        return scan(problem)
    device = triton_device.device_of(problem.docs)

    def fetched(part: P) -> None:
        """To the device of the caller, whose thread this is not: that has a current device of its own."""
        if device.type == "cpu":  # interpreted, which cannot be done beside another kernel
            return
        with torch.cuda.device(device), torch.cuda.stream(_copying(device)):
            fetch(part)

    return parts.propose(problem, found, fetched, scan, refine)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """One for all parts: what torch has allocated for a part that is gone, only the same stream gets again."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
