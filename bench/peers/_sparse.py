"""What searches of sparse rows share: forms of the rows, and answers that may be short of documents."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Contestant, Prepare, module
from bench.workloads.sparse_shapes import LISTED
from bench.workloads.sparse_text import Documents

FLOAT32 = "float32 sums"


def matrix(rows: Any) -> Any:
    """A scipy CSR matrix of those rows."""
    return module("scipy.sparse", "scipy").csr_matrix(
        (rows.values, rows.indices, rows.indptr), shape=(len(rows), rows.n_terms)
    )


def columns(docs: Documents) -> dict[str, Any]:
    """The postings as bm25s and its kin keep them."""
    columns = matrix(docs.rows).tocsc()
    pointers = columns.indptr.astype(np.int32), columns.indices.astype(np.int32)
    return {"data": columns.data, "indptr": pointers[0], "indices": pointers[1], "num_docs": len(docs.rows)}


def padded(found: list[tuple[Any, Any]]) -> Answer:
    """Rows that may be short of documents, with -1 and -inf where there are none."""
    width = max(len(ids) for _, ids in found)
    scores, ids = np.full((len(found), width), -np.inf, np.float32), np.full((len(found), width), -1, np.int64)
    for at, (row_scores, row_ids) in enumerate(found):
        scores[at, : len(row_ids)], ids[at, : len(row_ids)] = row_scores, row_ids
    return scores, ids


def sparse_peer(name: str, prepare: Prepare, copies: float, exactness: str = FLOAT32, **more: Any) -> Contestant:
    return Contestant(name, prepare, value_bytes=LISTED, copies=copies, exactness=exactness, **more)
