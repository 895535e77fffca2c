"""tantivy."""

from __future__ import annotations

from typing import Any

from bench.ours.contestants import Answer, Search, module
from bench.peers._sparse import padded, sparse_peer
from bench.workloads.sparse_text import Documents


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
    return padded([([score for score, _ in row], [at.doc for _, at in row]) for row in found])


PEERS = {
    "bm25": (sparse_peer("tantivy", tantivy, 2.0, "another BM25: k1 1.2, b .75", read=_from_hits, package="tantivy"),)
}
