"""Collections of any size that are like a real one: the laws are fitted to it, and there are no judgements."""

from __future__ import annotations

from dataclasses import replace

from bench.datasets import clustered, zipf
from bench.datasets.collection import Collection, Rows, numbered

QUERIES = 300


def like(real: Collection, n_docs: int) -> Collection:
    """Dense vectors and sparse rows, as far as ``real`` has them, independent of each other."""
    docs_rows = queries_rows = Rows(None)
    if real.docs.dense is not None and real.queries.dense is not None:
        law = clustered.fit(real.docs.dense, real.queries.dense)
        docs = clustered.documents(law, n_docs)
        docs_rows, queries_rows = Rows(docs), Rows(clustered.questions(law, docs, QUERIES))
    if real.docs.sparse is not None and real.queries.sparse is not None:
        terms = zipf.made(*zipf.fit(real.docs.sparse, real.queries.sparse), n_docs, QUERIES)
        docs_rows, queries_rows = (replace(rows, sparse=each) for rows, each in zip((docs_rows, queries_rows), terms))
    names = numbered(n_docs), numbered(QUERIES)
    return Collection(f"like-{real.name}:{n_docs}", docs_rows, queries_rows, *names, metric=real.metric)
