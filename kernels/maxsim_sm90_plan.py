"""The planner of the MaxSim scan's form for Hopper (`csrc/cuda/maxsim_sm90.cu`): how many query tokens a block keeps,
what its shared memory holds, how many documents it takes; and where the form is chosen. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyengine.kernels import dense_sm90_plan
from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_sm90_plan import ALIGNMENT, BARRIERS, DEPTH
from pyengine.kernels.maxsim_plan import Numbers, lay

BOX = 128  # document tokens
PANELS = (256, 512, 768, 1024)  # query tokens that a block keeps
DIMS = range(65, 129)  # rows of 128 bytes: a line of memory, and of the swizzle
KEPT = 20  # bytes of a query token beside its codes: maxima of four lanes, and a term
STATIC = 4096  # bytes of static shared memory, about: documents and their sums
MOST_STAGES = 8
MOST_RUN = 16  # documents of a block
LOADING = 1 / 16  # what a block's queries cost, in documents: a guess, never measured

# Which form was faster, by chip and query tokens of a panel. Where nothing has been measured, it is that for all chips.
MEASURED: Mapping[tuple[str, int], str] = {}


@dataclass(frozen=True)
class PageScan:
    """Blocks that keep panels of ``tokens`` query tokens, with a ring of ``stages`` boxes."""

    tokens: int
    stages: int
    shared: int  # bytes


def form(
    capability: int, chip: Chip, kind: str, tokens: int, dim: int, symmetric: bool, lengths: Sequence[int] | Numbers
) -> tuple[str, str]:
    """The form that scans documents of a ``kind``, of so many ``tokens`` in all, for queries of these ``lengths`` on a
    GPU of that compute capability (90 is 9.0), and why."""
    if capability != 90:
        return "sm_80", "wgmma is of compute capability 9.0 alone"
    if not tokens:
        return "sm_80", "a tensor map describes one row at least"
    if kind != "int8":
        return "sm_80", "tokens of few bits are decoded in registers"
    if symmetric:
        return "sm_80", "maxima of both sides are kept elsewhere"
    if dim not in DIMS:
        return "sm_80", f"its rows are of {DIMS.start} to {DIMS.stop - 1} dimensions"
    asked = dense_sm90_plan.asked()
    if asked is not None:
        return asked, "asked for"
    found = MEASURED.get((chip.name, plan_pages(chip, lengths).tokens))
    return (found, "measured") if found else ("sm_80", "not measured")


def plan_pages(chip: Chip, lengths: Sequence[int] | Numbers) -> PageScan:
    """Plan a scan for queries of these lengths: the panels that compute least, of these the largest."""
    tokens = min(PANELS, key=lambda each: (lay(lengths, each).count * each, -each))
    room = chip.shared - ALIGNMENT - BARRIERS - STATIC - tokens * (DEPTH + KEPT)
    stages = min(MOST_STAGES, room // (BOX * DEPTH))
    return PageScan(tokens, stages, ALIGNMENT + BARRIERS + tokens * (DEPTH + KEPT) + stages * BOX * DEPTH)


def documents_of_a_block(count: int, groups: int, multiprocessors: int) -> int:
    """Of ``count`` documents, each for all groups of queries, so many that the last block ends soonest, where each
    multiprocessor has one block at a time."""

    def time(run: int) -> float:
        return -(-groups * -(-count // run) // multiprocessors) * (run + LOADING)

    return min(range(1, MOST_RUN + 1), key=lambda run: (time(run), run))
