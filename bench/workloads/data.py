"""Corpora, seeded and made in chunks, and queries drawn near their documents.

"clustered" is meant to be like text embeddings: unit vectors around a few thousand centres, with a decaying spectrum
that a rotation spreads over all dimensions. "scaled" gives those vectors log-normal lengths, for ``dot`` and ``l2``.
"gaussian" is uniform on the sphere: no structure at all, the hardest for a bound. "signs" are those of the first, 1 or
-1, which one bit a dimension keeps as they are. "scifact" is real: MiniLM
embeddings of SciFact. The last bit of a corpus may differ between machines (it goes through their BLAS); every answer
is judged on the very arrays that were searched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import pyengine
from bench.workloads.shapes import Corpus
from bench.workloads.token_shapes import TokenCorpus
from pyengine.demos import demo_maxsim
from pyengine.inputs.ragged import Ragged
from pyengine.types import F32

SEED = 20261121
CHUNK = 1 << 14  # rows made at a time
SPREAD = 0.8  # length of a document's offset from its centre of length 1: cosine 0.6 within a cluster
QUERY_SPREAD = 0.5  # the same of a query from its document: cosine 0.9
TOPIC = 0.7  # length of what the tokens of one document share, beside a word of length 1
DECAY = 0.5  # the j-th direction has standard deviation j^-DECAY
SCIFACT = Path(pyengine.__file__).parent / "data" / "scifact" / "emb"

Draw = Callable[[np.random.Generator, int], F32]


def load(corpus: Corpus, n_queries: int) -> tuple[F32, F32]:
    """Documents float32 [N, D] and queries float32 [Q, D]; the first queries are the same however many are asked for.

    Raises FileNotFoundError where real data is asked for that is not there.
    """
    if corpus.data == "scifact":
        return np.load(SCIFACT / "doc_dense_f32.npy"), np.load(SCIFACT / "query_dense_f32.npy")[:n_queries]
    if corpus.data not in ("clustered", "scaled", "gaussian", "signs"):
        raise ValueError(f"data must be 'clustered', 'scaled', 'gaussian', 'signs' or 'scifact'; got {corpus.data!r}")
    draw = _directions(corpus)
    docs = _documents(corpus, draw)
    picks = np.random.default_rng([SEED, 2]).integers(len(docs), size=n_queries)
    lengths = np.linalg.norm(docs[picks], axis=1, keepdims=True)
    queries = docs[picks] + np.float32(QUERY_SPREAD) * lengths * draw(np.random.default_rng([SEED, 3]), n_queries)
    if corpus.data == "signs":
        return signs(docs), signs(queries)
    return docs, queries if corpus.data == "scaled" else unit(queries)


def signs(rows: F32) -> F32:
    """1 or -1 for each value, in place."""
    np.copysign(np.float32(1), rows, out=rows)
    return rows


def load_tokens(corpus: TokenCorpus, n_queries: int) -> tuple[Ragged, Ragged]:
    """Documents and queries of unit token vectors: a token lies near the topic of its document and near the centre of
    a word, a query's tokens near some of one document's. The first queries are the same however many are asked for.
    "scifact" is real: what the demo searches."""
    if corpus.data == "scifact":
        real = demo_maxsim.load()
        return real.docs, real.queries.take(np.arange(n_queries))
    if corpus.data != "clustered":
        raise ValueError(f"data of tokens must be 'clustered' or 'scifact'; got {corpus.data!r}")
    lengths = corpus.lengths.of(corpus.n_docs)
    words = Corpus(corpus.n_tokens, corpus.dim, corpus.data)
    draw = _directions(words)
    values = _documents(words, draw)
    topics = np.float32(TOPIC) * draw(np.random.default_rng([SEED, 6]), corpus.n_docs)
    topic_of = np.repeat(np.arange(corpus.n_docs), lengths)
    for start in range(0, len(values), CHUNK):
        part = slice(start, start + CHUNK)
        values[part] = unit(values[part] + topics[topic_of[part]])
    docs = Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
    rows = [_query(docs, draw, corpus.query_tokens, number) for number in range(n_queries)]
    return docs, Ragged.of(rows)


def _query(docs: Ragged, draw: Draw, n_tokens: int, number: int) -> F32:
    """float32 [Lq, D]"""
    rng = np.random.default_rng([SEED, 7, number])
    doc = docs[int(rng.integers(len(docs)))]
    return unit(doc[rng.integers(len(doc), size=n_tokens)] + np.float32(QUERY_SPREAD) * draw(rng, n_tokens))


def _documents(corpus: Corpus, draw: Draw) -> F32:
    """float32 [N, D], each chunk from a generator of its own, so that all cores can make them."""
    docs = np.empty((corpus.n_docs, corpus.dim), np.float32)
    centres = draw(np.random.default_rng([SEED, 1]), min(4096, max(1, corpus.n_docs // 64)))

    def fill(start: int) -> None:
        rng = np.random.default_rng([SEED, 4, start])
        part = docs[start : start + CHUNK]
        if corpus.data == "gaussian":
            part[:] = draw(rng, len(part))
            return
        near = centres[rng.integers(len(centres), size=len(part))]
        part[:] = unit(near + np.float32(SPREAD) * draw(rng, len(part)))
        if corpus.data == "scaled":
            part *= rng.lognormal(0.0, 0.25, size=(len(part), 1)).astype(np.float32)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, len(docs), CHUNK)))
    return docs


def _directions(corpus: Corpus) -> Draw:
    """Draws unit vectors [n, D]: isotropic for "gaussian", else with the spectrum of embeddings."""
    if corpus.data == "gaussian":
        return lambda rng, n: unit(rng.standard_normal((n, corpus.dim), dtype=np.float32))
    return directions(corpus.dim, DECAY)


def directions(dim: int, decay: float) -> Draw:
    """Draws unit vectors [n, D] whose j-th direction has standard deviation j ** -decay, before a rotation."""
    square = np.random.default_rng([SEED, 0]).standard_normal((dim, dim))
    rotation = np.linalg.qr(square)[0]  # [D, D]
    spectrum = np.arange(1, dim + 1) ** -decay
    mix = (spectrum[:, None] * rotation).astype(np.float32)
    return lambda rng, n: unit(rng.standard_normal((n, dim), dtype=np.float32) @ mix)


def unit(rows: F32) -> F32:
    lengths: F32 = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths
