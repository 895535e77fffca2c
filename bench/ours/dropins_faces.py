"""The faces of other libraries, each with the original beside it, on the same arguments: what `bench.dropins` races.

A face's answer must be the specification's to the bit, and the original's must be the same but for rounding, or else
the two do different things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.operations import training
from bench.ours.contestants import Answer, first_two, module
from bench.racing import gate
from bench.workloads import data
from bench.workloads.shapes import Corpus
from pyengine.demos import demo_maxsim
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim
from pyengine.types import F32

K = 10
RELATIVE = 1e-4  # of an original's scores, which are float32 sums
ENGINE = "pyengine"  # as a library: the face is compared with the engine itself

Check = Callable[[Any, Any], str]  # (the face's result, the original's) -> what is wrong, "" for nothing


class Calls(NamedTuple):
    face: Callable[[], Any]
    original: Callable[[], Any]
    check: Check


class Duel(NamedTuple):
    """``target`` is how many times faster than the original the face is to be; None where nothing was promised."""

    face: str
    library: str  # the distribution that the original comes from
    work: str
    target: float | None
    prepare: Callable[[], Calls]


def semantic_search(n_queries: int, packed: bool) -> Calls:
    """Tensors, cosine; packed, the corpus is an index of ours, and nothing is copied any more."""
    torch, util = module("torch"), module("sentence_transformers", "sentence-transformers").util
    face = module("pyengine.integrations.sentence_transformers")
    docs, queries = corpus(100_000, n_queries)
    theirs = torch.from_numpy(docs)
    ours = filled(docs) if packed else theirs
    asked = torch.from_numpy(queries)

    def read(hits: Any) -> Answer:
        scores = [[hit["score"] for hit in row] for row in hits]
        return np.array(scores, np.float32), np.array([[hit["corpus_id"] for hit in row] for row in hits])

    return Calls(
        lambda: face.semantic_search(asked, ours, top_k=K),
        lambda: util.semantic_search(asked, theirs, top_k=K),
        against(docs, queries, "cosine", read),
    )


def faiss_beside(n_queries: int, original: str) -> Calls:
    """`IndexFlatIP` of ours, beside faiss's or beside the engine that it calls."""
    docs, queries = corpus(100_000, n_queries)
    face = module("pyengine.integrations.faiss").IndexFlatIP(docs.shape[1])
    face.add(docs)
    if original == ENGINE:
        engine = face.engine
        return Calls(
            lambda: face.search(queries, K), lambda: engine.search(queries, K), against(docs, queries, "dot", first_two)
        )
    theirs = module("faiss", "faiss-cpu").IndexFlatIP(docs.shape[1])
    theirs.add(docs)
    return Calls(
        lambda: face.search(queries, K), lambda: theirs.search(queries, K), against(docs, queries, "dot", first_two)
    )


def nearest_neighbors(n_queries: int) -> Calls:
    """Fitted once; brute force, cosine."""
    face, theirs = module("pyengine.integrations.sklearn"), module("sklearn.neighbors", "scikit-learn")
    docs, queries = corpus(100_000, n_queries)
    ours, original = (
        each.NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(docs) for each in (face, theirs)
    )

    def read(found: Any) -> Answer:
        return (1 - found[0].astype(np.float64)).astype(np.float32), found[1]

    return Calls(
        lambda: ours.kneighbors(queries),
        lambda: original.kneighbors(queries),
        against(docs, queries, "cosine", read),
    )


class Vectors:
    """An embedding for LangChain that knows its answers: the i-th text's is the i-th vector."""

    def __init__(self, docs: F32, queries: F32) -> None:
        self.docs, self.queries = docs.tolist(), queries.tolist()

    def embed_documents(self, texts: list[str]) -> Any:
        return [self.docs[int(text)] for text in texts]

    def embed_query(self, text: str) -> Any:
        return self.queries[int(text)]


def langchain() -> Calls:
    """`similarity_search_with_score` of one query."""
    face = module("pyengine.integrations.langchain")
    theirs = module("langchain_core.vectorstores", "langchain-core")
    docs, queries = corpus(20_000, 1)
    names, embedding = [str(place) for place in range(len(docs))], Vectors(docs, queries)
    ours, original = (made(embedding) for made in (face.PyengineVectorStore, theirs.InMemoryVectorStore))
    for store in (ours, original):
        store.add_texts(names, ids=names)

    def read(found: Any) -> Answer:
        return np.array([[score for _, score in found]], np.float32), np.array([[int(doc.id) for doc, _ in found]])

    return Calls(
        lambda: ours.similarity_search_with_score("0", K),
        lambda: original.similarity_search_with_score("0", K),
        against(docs, queries, "cosine", read),
    )


def llama_index() -> Calls:
    """`query` in the default mode."""
    face = module("pyengine.integrations.llama_index")
    theirs = module("llama_index.core.vector_stores", "llama-index-core")
    node = module("llama_index.core.schema", "llama-index-core").TextNode
    docs, queries = corpus(20_000, 1)
    asked = theirs.VectorStoreQuery(query_embedding=queries[0].tolist(), similarity_top_k=K)
    ours, original = face.PyengineVectorStore(), theirs.SimpleVectorStore()
    for store in (ours, original):
        store.add([node(id_=str(place), text="", embedding=row) for place, row in enumerate(docs.tolist())])

    def read(found: Any) -> Answer:
        return np.array([found.similarities], np.float32), np.array([[int(name) for name in found.ids]])

    return Calls(lambda: ours.query(asked), lambda: original.query(asked), against(docs, queries, "cosine", read))


def haystack() -> Calls:
    """`embedding_retrieval`, cosine."""
    face = module("pyengine.integrations.haystack")
    theirs = module("haystack.document_stores.in_memory", "haystack-ai")
    document = module("haystack", "haystack-ai").Document
    docs, queries = corpus(20_000, 1)
    asked = queries[0].tolist()
    ours, original = (
        made(embedding_similarity_function="cosine")
        for made in (face.PyengineDocumentStore, theirs.InMemoryDocumentStore)
    )
    for store in (ours, original):
        store.write_documents([document(id=str(place), embedding=row) for place, row in enumerate(docs.tolist())])

    def read(found: Any) -> Answer:
        return np.array([[each.score for each in found]], np.float32), np.array([[int(each.id) for each in found]])

    return Calls(
        lambda: ours.embedding_retrieval(asked, top_k=K),
        lambda: original.embedding_retrieval(asked, top_k=K),
        against(docs, queries, "cosine", read),
    )


def maxsim(packed: bool) -> Calls:
    """`util.maxsim` of one query with the documents of the demo, a list of tensors; packed, a `Ragged`."""
    torch, util = module("torch"), module("sentence_transformers", "sentence-transformers").util
    face = module("pyengine.integrations.sentence_transformers_maxsim")
    real = demo_maxsim.load()
    query, rows = torch.from_numpy(real.queries[0]), [torch.from_numpy(row) for row in real.docs]
    ours: Any = real.docs if packed else rows
    true = reference_maxsim.scores(real.queries.take(np.array([0])), real.docs)

    def check(found: Any, theirs: Any) -> str:
        return same_scores(found.numpy(), theirs.numpy(), true)

    return Calls(lambda: face.maxsim(query, ours), lambda: util.maxsim(query, rows), check)


def pylate_step() -> Calls:
    """A contrastive step, forward and backward: 32 queries of 32 tokens, 64 documents of 180, 128 dimensions."""
    torch = module("torch")
    face, theirs = module("pyengine.integrations.pylate"), module("pylate.scores", "pylate")
    rng = np.random.default_rng(data.SEED)
    queries, docs = (
        torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)), dim=-1)
        for shape in ((32, 32, 128), (64, 180, 128))
    )
    queries.requires_grad_(), docs.requires_grad_()
    true = training.specified(*(Ragged.of(list(each.detach().numpy())) for each in (queries, docs)))

    def step(scorer: Any) -> training.Step:
        queries.grad = docs.grad = None
        scores = scorer(queries, docs)
        torch.nn.functional.cross_entropy(scores, torch.arange(len(queries))).backward()
        gradients = (each.grad.numpy().reshape(-1, each.shape[2]) for each in (queries, docs))
        return training.Step(scores.detach().numpy(), *gradients)

    def check(found: Any, original: Any) -> str:
        return training.judge(found, true).reason or same_scores(found.scores, original.scores, true.scores)

    return Calls(partial(step, face.colbert_scores), partial(step, theirs.colbert_scores), check)


def duels() -> Iterator[Duel]:
    for n_queries, target in ((1, 10.0), (100, 5.0)):
        work = f"cosine, 100,000 x 384, {n_queries}"
        name = "util.semantic_search"
        yield Duel(name, "sentence-transformers", work, None, partial(semantic_search, n_queries, False))
        yield Duel(f"{name}, packed", "sentence-transformers", work, target, partial(semantic_search, n_queries, True))
    for n_queries in (1, 100):
        work = f"dot, 100,000 x 384, {n_queries}"
        yield Duel("IndexFlatIP", ENGINE, work, 1 / 1.05, partial(faiss_beside, n_queries, ENGINE))
        yield Duel("IndexFlatIP", "faiss-cpu", work, None, partial(faiss_beside, n_queries, "faiss-cpu"))
    for n_queries in (1, 100):
        work = f"cosine, 100,000 x 384, {n_queries}"
        yield Duel("NearestNeighbors", "scikit-learn", work, None, partial(nearest_neighbors, n_queries))
    work = "cosine, 20,000 x 384, 1"
    yield Duel("vector store", "langchain-core", work, 30.0, langchain)
    yield Duel("vector store", "llama-index-core", work, 30.0, llama_index)
    yield Duel("document store", "haystack-ai", work, 30.0, haystack)
    work = "SciFact's tokens, 1"
    yield Duel("util.maxsim", "sentence-transformers", work, None, partial(maxsim, False))
    yield Duel("util.maxsim, packed", "sentence-transformers", work, 50.0, partial(maxsim, True))
    yield Duel("colbert_scores, a training step", "pylate", "32 x 32, 64 x 180 tokens x 128", 4.0, pylate_step)


@cache
def corpus(n_docs: int, n_queries: int) -> tuple[F32, F32]:
    return data.load(Corpus(n_docs, 384, "clustered"), n_queries)


def filled(docs: F32) -> Any:
    index = pyengine.DenseIndex(docs.shape[1], metric="cosine")
    index.add(docs)
    return index


def against(docs: F32, queries: F32, metric: str, read: Callable[[Any], Answer]) -> Check:
    """The check of a search: some of the face's rows by the specification, all scores by the original's."""

    def check(found: Any, original: Any) -> str:
        ours, theirs = read(found), read(original)
        truth = gate.Specification(docs, queries, metric)
        verdict = gate.judge(ours, truth, truth.sample(len(queries)), K)
        return verdict.reason or same_scores(ours[0], theirs[0], ours[0])

    return check


def same_scores(ours: F32, theirs: F32, true: F32) -> str:
    """Ours are the specification's bits, and theirs as near as float32 sums are."""
    if not np.array_equal(ours.view(np.uint32), true.view(np.uint32)):
        return (
            f"{np.count_nonzero(ours.view(np.uint32) != true.view(np.uint32))} scores are not the specification's bits"
        )
    error = float(np.abs(theirs.astype(np.float64) - true).max() / np.abs(true).max())
    return "" if error <= RELATIVE else f"the original's scores are off by {error:.2g}: it does something else"
