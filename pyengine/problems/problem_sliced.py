"""One validated search of sliced vectors, and documents that are such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem import PlainCorpus, Problem
from pyengine.types import I64


@dataclass(frozen=True)
class SlicedDocuments(PlainCorpus):
    """N documents; what is derived from them is kept with ``rows``."""

    rows: SlicedRows

    @property
    def dim(self) -> int:
        return self.rows.dim

    @property
    def store(self) -> str:
        return "float32"

    def part(self, which: slice) -> SlicedDocuments:
        return SlicedDocuments(self.rows.take(which), cache={})


@dataclass(frozen=True, kw_only=True)
class SlicedProblem(Problem):
    """A top-k search by gated inner products (`pyengine.specification.reference_sliced`). ``metric`` is "dot"."""

    family: ClassVar[str] = "sliced"
    docs: SlicedDocuments
    queries: SlicedRows
    metric: str = "dot"

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    def queries_only(self, which: I64) -> dict[str, Any]:
        return {"queries": self.queries.take(which)}

    def describe_operands(self) -> str:
        shapes = f"queries float32 [{self.n_queries}, {self.docs.dim}], documents [{len(self.docs)}, {self.docs.dim}]"
        return f"gated dot, {shapes}, each with indices uint8"
