"""Seismic, which is approximate, and takes minutes to set up over a million documents: it races where it is named."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Search, module
from bench.peers._sparse import padded, sparse_peer
from bench.workloads.sparse_text import Documents


def seismic(docs: Documents, metric: str, threads: int) -> Search:
    """Seismic as its authors set it up for SPLADE: lists of 6,000 on average, ten terms of a query, heap factor .7."""
    library, rows = module("seismic", "pyseismic-lsr"), docs.rows
    data = library.SeismicDataset(rows.n_terms)
    names = [str(row) for row in range(len(rows))]
    data.add_documents_by_id(names, rows.indices.astype(np.int64), rows.values, rows.indptr)
    index = library.SeismicIndex.build_from_dataset(data, n_postings=6000, summary_energy=0.4, num_threads=threads)
    kind = library.get_seismic_string()

    def search(queries: Any, k: int) -> Any:
        terms = [queries[at][0].astype(str).astype(kind) for at in range(len(queries))]
        weights = [queries[at][1] for at in range(len(queries))]
        names = np.arange(len(queries)).astype(str).astype(kind)
        return index.batch_search(names, terms, weights, k, 10, 0.7, num_threads=threads)

    return search


def _from_triples(found: Any) -> Answer:
    """Lists of (query, score, id), both names."""
    by_query = sorted(found, key=lambda row: int(row[0][0]) if row else -1)
    return padded([([hit[1] for hit in row], [int(hit[2]) for hit in row]) for row in by_query])


PEERS = {
    "sparse_topk": (
        sparse_peer(
            "seismic", seismic, 8.0, "approximate", read=_from_triples, package="pyseismic-lsr", only_named=True
        ),
    )
}
