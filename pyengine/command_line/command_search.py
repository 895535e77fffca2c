"""The command ``pyengine search``: of vectors, or of texts by words, by vectors, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from pyengine.command_line import command_parts as parts
from pyengine.evaluate import Document
from pyengine.fuse import fuse
from pyengine.lexical import text_search
from pyengine.types import F32, TopK

SHOWN = 5  # queries of which the results are printed
SNIPPET = 90

Docs = Annotated[
    Path,
    typer.Argument(help="Vectors, .npy [N, D]; or texts: a .jsonl with _id, title, text, or a folder.", exists=True),
]
Queries = Annotated[
    str, typer.Argument(help="Vectors, .npy [Q, D]; or texts: a .jsonl with _id, text, a .txt, or one in quotes.")
]
Vectors = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        help="Vectors of the texts and of the queries, two .npy in their order.",
        exists=True,
        dir_okay=False,
        metavar="DOCS.npy QUERIES.npy",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(help="A folder with a sentence-transformers model, to make them.", exists=True, file_okay=False),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Names of vectors: .npy or .json list for the documents, or .json with doc_ids and query_ids.",
        exists=True,
        dir_okay=False,
    ),
]


class Options(NamedTuple):
    """How to search."""

    k: int
    vectors: tuple[Path, Path] | None
    model: Path | None
    language: str | None
    metric: str
    backend: str
    store: str
    threads: int | None


class Found(NamedTuple):
    """A result, the names of its documents and queries, what to show of each, and what its scores are."""

    result: TopK
    doc_ids: list[str]
    query_ids: list[str]
    texts: list[str]
    questions: list[str]
    scores: str


def search(
    docs: Docs,
    queries: Queries,
    k: Annotated[int, typer.Option(help="Results per query.")] = 10,
    sparse: Annotated[bool, typer.Option("--sparse", help="Texts by words (BM25): what texts get by default.")] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Texts by --vectors or a --model.")] = False,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Both, by reciprocal rank fusion.")] = False,
    vectors: Vectors = None,
    model: Model = None,
    language: Annotated[str, typer.Option(help="Of the stemmer; none leaves words as they are.")] = "english",
    metric: parts.Metric = "cosine",
    backend: parts.Backend = "auto",
    store: parts.Store = "int8",
    threads: parts.Threads = None,
    ids: Names = None,
    output: parts.Output = None,
) -> None:
    """The k best documents of each query, printed or written: of vectors, or of texts."""
    modes = [name for name, wanted in (("--sparse", sparse), ("--dense", dense), ("--hybrid", hybrid)) if wanted]
    if len(modes) > 1:
        raise ValueError(f"{' and '.join(modes)} cannot be had together")
    stems = None if language == "none" else language
    options = Options(k, vectors, model, stems, metric, backend, store, threads)
    if text_search.is_text(docs):
        found = of_texts(docs, queries, (modes or ["--sparse"])[0], ids, options)
    else:
        found = of_vectors(docs, queries, modes, ids, options)
    if output is not None:
        parts.write(output, found.result, found.doc_ids, found.query_ids, found.scores)
    else:
        show(found)


def of_vectors(docs: Path, queries: str, modes: list[str], ids: Path | None, options: Options) -> Found:
    """A search of .npy files, as with --dense."""
    given = {"--vectors": options.vectors, "--model": options.model}
    for_texts = [mode for mode in modes if mode != "--dense"] + [name for name, value in given.items() if value]
    if for_texts:
        raise ValueError(f"{for_texts[0]} must come with texts, in a folder or a .jsonl file; got {docs}")
    if not Path(queries).is_file():
        raise FileNotFoundError(f"{queries} is missing: vectors of documents need a .npy file of vectors of queries")
    vectors, asked = parts.read_vectors(docs), parts.read_vectors(Path(queries))
    doc_ids, query_ids = parts.read_ids(ids, len(vectors), len(asked))
    result = dense_search(vectors, asked, options.k, options)
    return Found(result, doc_ids, query_ids, [""] * len(doc_ids), [""] * len(query_ids), options.metric)


def of_texts(path: Path, queries: str, mode: str, ids: Path | None, options: Options) -> Found:
    """A search of texts by words, by vectors, or by both."""
    if ids is not None:
        raise ValueError(f"--ids must come with vectors, not with texts, which have names; got {ids}")
    if mode == "--sparse" and (options.vectors or options.model):
        raise ValueError("--vectors and --model must come with --dense or --hybrid")
    docs, questions = text_search.read_documents(path), text_search.read_questions(queries)
    depth = options.k if mode != "--hybrid" else max(options.k, text_search.DEPTH)
    results = []
    if mode != "--sparse":
        vectors, asked = text_vectors(docs, questions, options)
        results.append(dense_search(vectors, asked, depth, options))
    if mode != "--dense":
        results.append(lexical_search(docs, questions, depth, options))
    result = fuse(results, options.k) if mode == "--hybrid" else results[0]
    scores = {"--sparse": "BM25", "--dense": options.metric, "--hybrid": "RRF"}[mode]
    texts = text_search.joined(docs.values())
    return Found(result, list(docs), list(questions), texts, list(questions.values()), scores)


def text_vectors(docs: dict[str, Document], questions: dict[str, str], options: Options) -> tuple[F32, F32]:
    """The vectors of texts and of questions, read or made."""
    if (options.vectors is None) == (options.model is None):
        raise ValueError("--dense and --hybrid need the vectors of the texts: either --vectors or --model")
    if options.model is not None:
        return text_search.embed(options.model, docs.values(), questions.values())
    assert options.vectors is not None
    of_docs, of_questions = options.vectors
    return vectors_of(of_docs, len(docs), "documents"), vectors_of(of_questions, len(questions), "queries")


def vectors_of(path: Path, n_texts: int, kind: str) -> F32:
    rows = parts.read_vectors(path)
    if len(rows) != n_texts:
        raise ValueError(f"{path} must have a row for each of the {n_texts} {kind}; got {len(rows)}")
    return rows


def dense_search(vectors: F32, asked: F32, k: int, options: Options) -> TopK:
    return parts.find(vectors, asked, k, options.metric, options.backend, options.store, options.threads)


def lexical_search(docs: dict[str, Document], questions: dict[str, str], k: int, options: Options) -> TopK:
    texts, asked, how = docs.values(), questions.values(), options
    return text_search.by_words(texts, asked, k, language=how.language, backend=how.backend, threads=how.threads)


def show(found: Found) -> None:
    """A table for each of the first queries."""
    result = found.result
    with_texts = any(found.texts)
    for name, question, scores, rows in zip(found.query_ids[:SHOWN], found.questions, result.scores, result.ids):
        title = Text(" ".join(filter(None, (f"query {name}", shortened(question)))))
        table = Table(
            "", "document", *(["text"] if with_texts else []), found.scores, title=title, title_justify="left"
        )
        for place, (score, row) in enumerate(zip(scores, rows), 1):
            if row >= 0:
                text = [Text(shortened(found.texts[row]), "dim")] if with_texts else []
                table.add_row(str(place), Text(found.doc_ids[row]), *text, f"{score:.6g}")
        parts.console.print(table)
    if len(found.query_ids) > SHOWN:
        parts.console.print(f"The first {SHOWN} of {len(found.query_ids)} queries; --output keeps them all.")


def shortened(text: str) -> str:
    """The beginning, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else line[:SNIPPET] + " ..."
