"""MaxSim queries on the device: their tokens as they are, and where these lie in the panels of a scan.

What the host sends is the tokens, their weights, and numbers that depend on lengths alone: so of a search whose lengths
stay, only the tokens change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.shared import token_terms
from pyengine.backends.shared.token_terms import UNDERFLOW
from pyengine.backends.triton import triton_tokens
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.lists import first_rows
from pyengine.kernels import maxsim_plan, maxsim_queries, maxsim_refine, maxsim_topk
from pyengine.kernels.maxsim_plan import SLOTS, lay
from pyengine.kernels.maxsim_queries import Coding, Laid
from pyengine.kernels.selection import Pools
from pyengine.kernels.token_values import TokenSets
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.types import I64


class Asked(NamedTuple):
    """Q queries: ``tokens`` float32 [T, D], of which those of a query begin at ``offsets`` int64 [Q + 1], the most
    ``longest``; ``weights`` float32 [T] or None; and how they are laid out."""

    tokens: Tensor
    weights: Tensor | None
    offsets: Tensor
    laid: Laid
    longest: int

    def sets(self, dims: int, normalize: bool, room: Workspace) -> TokenSets:
        """The same, as they are refined."""
        sets = TokenSets(self.tokens, self.offsets, dims, self.longest)
        if not normalize:
            return sets
        norms = room.roomy("query norms", (len(self.tokens),), torch.float64)
        return sets._replace(norms=maxsim_refine.norms(sets, norms))


def laid(offsets: I64, block_m: int, alone: bool) -> Laid:
    """Where the tokens of queries lie in panels, as arrays; with ``alone`` no two queries share one."""
    lengths = np.diff(offsets)
    panels, owner, number = lay(lengths, block_m, alone), first_rows(offsets), np.arange(offsets[-1])
    n_rows = panels.count * block_m
    at = panels.starts[owner] + number - offsets[owner]
    token_of, slots = np.full(n_rows, -1, np.int32), np.full(n_rows, SLOTS, np.int32)
    token_of[at] = number
    slots[at] = owner - panels.queries[np.searchsorted(panels.queries, owner, side="right") - 1]
    begins = np.append(panels.starts, n_rows)
    return Laid(token_of, slots, *(each.astype(np.int32) for each in (begins, panels.firsts, panels.queries, lengths)))


def asked(problem: MaxSimProblem, own: Laid, room: Workspace) -> Asked:
    """The queries of a problem, copied to the device."""
    queries = problem.queries
    tokens, weights, offsets, *rest = room.sent("queries", queries.values, problem.query_weights, queries.offsets, *own)
    return Asked(tokens, weights, offsets, Laid(*rest), triton_tokens.longest(queries.offsets))


def coding(problem: MaxSimProblem, form: str, units: Tensor) -> Coding:
    """How the queries are coded for documents of a ``form``, whose weights and shares have these ``units``."""
    dims, most = maxsim_plan.padded(problem.docs.dim, form), token_terms.most_tokens(problem)
    rounding = maxsim_topk.rounding(dims, most, triton_tokens.query_form(form))
    symmetric, mean = problem.reduce == "symmetric", problem.reduce != "sum" and problem.query_weights is None
    return Coding(problem.normalize, mean, symmetric, rounding, most * dims * UNDERFLOW, units)


def panels(own: Asked, width: int, form: str, how: Coding, found: Pools, room: Workspace) -> Any:
    """`maxsim_topk.QueryPanels` in rows of ``width``, in room that is kept; and their `answers.finish` scaling. The
    pools are emptied."""
    n_rows, n_queries = len(own.laid.slots), len(own.laid.lengths)
    kind = torch.int8 if form == "int8" else torch.float16
    into = maxsim_queries.Room(
        room.roomy("query codes", (n_rows, width), kind),
        room.roomy("measured", (3, n_rows), torch.float64),
        room.roomy("coefficients", (n_rows,), torch.float32),
        room.roomy("factors", (n_rows,), torch.float32),
        room.room("query terms", (n_queries, 7), torch.float64),
        room.room("scaling", (n_queries, 2), torch.float64),
    )
    return maxsim_queries.code_queries(own.tokens, own.weights, own.laid, how, into, found), into.scaling
