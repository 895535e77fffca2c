"""The workloads, by name. Every speed that the project states is one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SCIFACT_DOCS, SCIFACT_QUERIES, SCIFACT_DIM = 5_183, 300, 384


class Corpus(NamedTuple):
    """What the workloads that share one corpus agree on; ``data`` is a kind of `bench.data`."""

    n_docs: int
    dim: int
    data: str


@dataclass(frozen=True)
class Workload:
    """One search: the ``k`` best of ``n_docs`` documents for each of ``n_queries`` queries."""

    n_docs: int = 200_000
    dim: int = 768
    n_queries: int = 32
    k: int = 100
    metric: str = "cosine"
    data: str = "clustered"

    @property
    def name(self) -> str:
        count = f"{self.n_docs // 1000}k" if self.n_docs % 1000 == 0 else str(self.n_docs)
        extras = [self.metric] * (self.metric != "cosine") + [self.data] * (self.data != "clustered")
        return "-".join([f"n{count}", f"d{self.dim}", f"q{self.n_queries}", f"k{self.k}", *extras])

    @property
    def parts(self) -> set[str]:
        """The words of the name, by which it can be chosen."""
        return set(self.name.split("-"))

    @property
    def corpus(self) -> Corpus:
        return Corpus(self.n_docs, self.dim, self.data)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the whole score matrix."""
        return 2 * self.n_docs * self.dim * self.n_queries


DENSE = (
    Workload(n_queries=1),
    Workload(n_queries=32),
    Workload(n_queries=1024),
    Workload(k=10),
    Workload(k=1000),
    Workload(dim=128),
    Workload(dim=384),
    Workload(metric="dot", data="scaled"),
    Workload(metric="l2", data="scaled"),
    Workload(data="gaussian"),
    Workload(n_docs=SCIFACT_DOCS, dim=SCIFACT_DIM, n_queries=SCIFACT_QUERIES, k=10, data="scifact"),
)


QUICK = DENSE[:3]
"""One query, a batch and many: the first table of the README."""
