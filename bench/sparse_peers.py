"""The others in sparse search: what each library offers for a top k by inner product over given sparse vectors, set up
outside the time, with the same number of threads. Of documents that share no term with a query, most list none. What is
not installed says so.

They are no dependencies of the benchmark: ``pip install pyvsag splade-index numba bm25s pyseismic-lsr scipy
sparse_dot_topn tantivy`` in an environment of its own (splade-index with ``--no-deps``: it asks for a training stack).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bench.contestants import Answer, Contestant, Prepare, Search, module
from bench.sparse_shapes import LISTED
from bench.sparse_text import Documents
from pyengine.types import F32, I64

FLOAT32 = "float32 sums"
BLOCK = 32  # queries of which scipy makes all scores at once


def sindi(docs: Documents, metric: str, threads: int) -> Search:
    """pyvsag's SINDI with float32 values, nothing pruned, a heap of k; a query at a time, in one thread."""
    pyvsag, rows = module("pyvsag"), docs.rows
    pyvsag.set_logger_off()
    options = {"term_id_limit": rows.n_terms, "window_size": 60_000, "doc_prune_ratio": 0.0}
    longest = max(1, int(np.diff(rows.indptr).max(initial=1)))
    about = {"dtype": "sparse", "metric_type": "ip", "dim": longest, "index_param": options}
    index = pyvsag.Index("sindi", json.dumps(about))
    index.build(*_unsigned(rows), np.arange(len(rows), dtype=np.int64))

    def search(queries: Any, k: int) -> Any:
        how = json.dumps({"sindi": {"n_candidate": k, "query_prune_ratio": 0.0}})
        asked = (queries.part(slice(at, at + 1)) for at in range(len(queries)))
        return [index.knn_search(*_unsigned(one), k, how) for one in asked]

    return search


def _unsigned(rows: Any) -> tuple[Any, Any, Any]:
    return rows.indptr.astype(np.uint32), rows.indices.astype(np.uint32), rows.values


def _from_distances(found: Any) -> Answer:
    """Pairs of ids [1, K] and 1 - score [1, K]."""
    return _padded([(1 - distances[0], ids[0]) for ids, distances in found])


def _padded(found: list[tuple[Any, Any]]) -> Answer:
    """Rows that may be short of documents, with -1 and -inf where there are none."""
    width = max(len(ids) for _, ids in found)
    scores, ids = np.full((len(found), width), -np.inf, np.float32), np.full((len(found), width), -1, np.int64)
    for at, (row_scores, row_ids) in enumerate(found):
        scores[at, : len(row_ids)], ids[at, : len(row_ids)] = row_scores, row_ids
    return scores, ids


def splade_index(docs: Documents, metric: str, threads: int) -> Search:
    """splade-index's numba search of given vectors, without the model that it would ask for them."""
    retrieve = module("splade_index.numba.retrieve_utils", "splade-index")._retrieve_numba_functional
    scores = _columns(docs)

    def search(queries: Any, k: int) -> Any:
        terms, weights = zip(*(queries[at] for at in range(len(queries))))
        return retrieve(terms, weights, scores, k, show_progress=False, n_threads=threads)[::-1]

    search(docs.rows.part(slice(0, 1)), 1)  # numba compiles now
    return search


def _columns(docs: Documents) -> dict[str, Any]:
    """The postings as bm25s and its kin keep them."""
    columns = matrix(docs.rows).tocsc()
    pointers = columns.indptr.astype(np.int32), columns.indices.astype(np.int32)
    return {"data": columns.data, "indptr": pointers[0], "indices": pointers[1], "num_docs": len(docs.rows)}


def matrix(rows: Any) -> Any:
    """A scipy CSR matrix of those rows."""
    return module("scipy.sparse", "scipy").csr_matrix(
        (rows.values, rows.indices, rows.indptr), shape=(len(rows), rows.n_terms)
    )


def scipy_product(docs: Documents, metric: str, threads: int) -> Search:
    """A sparse product of 32 queries with the transposed documents, then argpartition; scipy has one thread."""
    postings = matrix(docs.rows).T.tocsr()

    def search(queries: Any, k: int) -> Any:
        parts = (queries.part(slice(at, at + BLOCK)) for at in range(0, len(queries), BLOCK))
        return [best for part in parts for best in _best_of_rows(matrix(part) @ postings, k)]

    return search


def _best_of_rows(scores: Any, k: int) -> list[tuple[F32, I64]]:
    return [
        _best(scores.data[first:last], scores.indices[first:last], k)
        for first, last in zip(scores.indptr[:-1], scores.indptr[1:])
    ]


def _best(scores: F32, ids: Any, k: int) -> tuple[F32, I64]:
    chosen = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
    chosen = chosen[np.lexsort((ids[chosen], -scores[chosen]))]
    return scores[chosen], ids[chosen]


def sparse_dot_topn(docs: Documents, metric: str, threads: int) -> Search:
    """sparse_dot_topn.sp_matmul_topn with the transposed documents."""
    multiply, postings = module("sparse_dot_topn").sp_matmul_topn, matrix(docs.rows).T.tocsr()
    workers = threads if threads > 1 else None
    return lambda queries, k: multiply(matrix(queries), postings, top_n=k, sort=True, n_threads=workers)


def _from_csr(found: Any) -> Answer:
    ends = found.indptr[1:-1]
    return _padded(list(zip(np.split(found.data, ends), np.split(found.indices, ends))))


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
    return _padded([([hit[1] for hit in row], [int(hit[2]) for hit in row]) for row in by_query])


def bm25s(docs: Documents, metric: str, threads: int) -> Search:
    """bm25s's numba search of the same impacts; it takes no weights of queries."""
    retrieve = module("bm25s.numba.retrieve_utils", "bm25s")._retrieve_numba_functional
    scores = _columns(docs)

    def search(queries: Any, k: int) -> Any:
        terms = [queries[at][0] for at in range(len(queries))]
        return retrieve(terms, scores, k=k, show_progress=False, n_threads=threads)[::-1]

    search(docs.rows.part(slice(0, 1)), 1)  # numba compiles now
    return search


def tantivy(docs: Documents, metric: str, threads: int) -> Search:
    """tantivy's BM25 of the same text: k1 1.2, b .75 and lengths of 8 bits cannot be changed. One thread."""
    library = module("tantivy")
    schema = library.SchemaBuilder().add_text_field("text", tokenizer_name="whitespace", index_option="freq").build()
    index = library.Index(schema)
    writer = index.writer(1 << 30, 1)
    for text in docs.texts():
        writer.add_document(library.Document(text=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher, ask = index.searcher(), library.Query

    def search(queries: Any, k: int) -> Any:
        rows = ([ask.term_query(schema, "text", f"t{term}") for term in queries[at][0]] for at in range(len(queries)))
        asked = (ask.boolean_query([(library.Occur.Should, term) for term in terms]) for terms in rows)
        return [searcher.search(one, k, count=False).hits for one in asked]

    return search


def _from_hits(found: Any) -> Answer:
    """Lists of (score, address), of which the document is the row: there is one segment."""
    return _padded([([score for score, _ in row], [at.doc for _, at in row]) for row in found])


def _contestant(name: str, prepare: Prepare, copies: float, exactness: str = FLOAT32, **more: Any) -> Contestant:
    return Contestant(name, prepare, value_bytes=LISTED, copies=copies, exactness=exactness, **more)


def warm(who: Contestant, docs: Documents, threads: int) -> None:
    """Set that peer up over a few documents, so that what it loads and compiles is there. Raises what its setup
    raises."""
    who.prepare(docs.part(slice(0, 100)), "dot", threads)


PEERS = (
    _contestant("sindi", sindi, 1.5, read=_from_distances, package="pyvsag"),
    _contestant("splade-index", splade_index, 2.0, package="splade-index"),
    _contestant("scipy", scipy_product, 2.0, read=_padded, package="scipy"),
    _contestant("sparse_dot_topn", sparse_dot_topn, 2.0, read=_from_csr, package="sparse_dot_topn"),
)
SEISMIC = _contestant("seismic", seismic, 8.0, "approximate", read=_from_triples, package="pyseismic-lsr")
TEXT_PEERS = (
    _contestant("bm25s", bm25s, 2.0, package="bm25s"),
    _contestant("tantivy", tantivy, 2.0, "another BM25: k1 1.2, b .75", read=_from_hits, package="tantivy"),
)
