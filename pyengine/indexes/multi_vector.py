"""`MultiVectorIndex`: a corpus of documents of token vectors, searched exactly by late interaction (MaxSim)."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

from pyengine import checks
from pyengine.indexes import chunks, codecs, kmeans
from pyengine.indexes.life import Index
from pyengine.indexes.pooling import Pooler, Pooling
from pyengine.indexes.token_store import TokenStore
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact
from pyengine.searches.explain import Plan, explain
from pyengine.searches.maxsim_request import candidate_lists, kind, numbers_of, prepare, rerank, rows_of
from pyengine.searches.maxsim_scores import listed, matrix, pair_list
from pyengine.searches.request import answer, as_input, run
from pyengine.types import I64, TopK

TRAIN_SAMPLE = 1 << 20  # tokens that `train` takes at most


class MultiVectorIndex(Index[TokenStore]):
    """Exact top-k of documents that are bags of token vectors: ColBERT, ColPali, FILIP and their kin.

    Parameters
    ----------
    dim : int
        D, the dimensions of every token.
    codec : "int8", "float32" or "f32", "float16", "bfloat16" or "bf16", "binary", "residual1", "residual2", "residual4"
        How tokens are kept: as `pyengine.DenseIndex` keeps vectors under those names; or, by residuals, as the nearest
        of some centroids and what is left of it in 1, 2 or 4 bits a dimension, 4 bytes a token more (ColBERTv2, arXiv
        2112.01488). The first documents added are the sample for the centroids, unless `train` was given another.
    originals : "ram", "disk" or None
        With codes: where the float32 tokens are kept too, which then define the scores; with None the codes do. "disk"
        keeps them in a file, of which a search reads the candidates only; the codes stay in memory. Beside originals
        only int8 codes have a bound tight enough for an exact search, which with the others scans the originals; they
        rank a search of ``precision="fast"``.
    normalize : bool
        Whether tokens are compared by cosine rather than by inner product.
    backend : "auto" or a name of `pyengine.backends`
    directory : path of a folder
        Where ``originals="disk"`` takes space, by default with the temporary files.

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument. A failed call changes nothing, nor does one that Ctrl-C stops.

    Searches may run while other threads add and remove: each sees one state of the index, as does `save`.
    """

    kind = "MultiVectorIndex"
    settings = ("dim", "codec", "originals", "normalize")

    def __init__(
        self,
        dim: int,
        codec: str = "int8",
        originals: str | None = "ram",
        normalize: bool = False,
        backend: str = "auto",
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.dim = checks.positive_int(dim, "dim")
        codec = codecs.SHORT.get(codec, codec) if isinstance(codec, str) else codec
        self.codec, self.originals = checks.choice(codec, "codec", codecs.CODECS), originals
        self.normalize = checks.flag(normalize, "normalize")
        tokens = codecs.make(codec, originals, self.dim, checks.folder(directory, "directory"))
        super().__init__(TokenStore(tokens), backend)

    def __repr__(self) -> str:
        contents = self._contents
        return (
            f"MultiVectorIndex(dim={self.dim}, codec={self.codec!r}, documents={len(contents)}, "
            f"tokens={contents.store.offsets[contents.n_rows]}, bytes={contents.store.nbytes(contents.n_rows)})"
        )

    def add(self, docs: Any, ids: Any = None, *, pool: float | None = None, drop: Any = None) -> Pooling | None:
        """Add documents with ``ids`` int64 [n] (default: counting on from the largest id ever used).

        ``docs`` is a `pyengine.Ragged` (of a float32 memory map, too, of which a few megabytes are read at a time), a
        list of arrays [L_i, D], an array [n, L, D], or an iterator of such chunks; then ``ids``, if given, is an
        iterator of their ids. One call adds everything or nothing, and searches see nothing of it until all is there.

        With ``pool``, a number of 1 or more, ceil(L / pool) tokens are kept of L, each the mean of some that are alike,
        and tokens of which ``drop`` is True are not kept at all: see `pyengine.pool_tokens`. What was removed is
        returned, as a `pyengine.Pooling` (12 bytes a token). ``drop`` is bool [T] or a list of arrays [L_i], and for an
        iterator of chunks an iterator of these.

        Raises ValueError for a wrong shape, a token with NaN or inf, or an id that is there already; TypeError for a
        wrong dtype; and whatever an iterator raises. Nothing is added then.
        """
        pooler, total = _pooler(pool, drop), chunks.length(docs)
        self._add(chunks.watched(chunks.documents(docs, ids, self.dim, pooler, drop), total), total)
        return None if pooler is None else pooler.pooling

    def replace(self, docs: Any, ids: Any, *, pool: float | None = None, drop: Any = None) -> Pooling | None:
        """Put other documents in the place of those with these ``ids``, as one change: arguments and result are as for
        `add`, but every id must be in the index. In the order of `ids` they come last."""
        pooler = _pooler(pool, drop)
        pieces = chunks.documents(docs, checks.given(ids, "ids"), self.dim, pooler, drop)
        self._add(pieces, None, replacing=True)
        return None if pooler is None else pooler.pooling

    def train(self, docs: Any, centroids: int | None = None) -> None:
        """Make the centroids of residual codes from these documents (as for `add`), which are not added: from their
        first 1,048,576 tokens. By default there are as many as ColBERTv2 takes, the power of two below 16 sqrt(tokens),
        65,536 at most. The same documents give the same bits, on any machine.

        Raises ValueError for another codec, where there are documents already, and for documents without tokens.
        """
        if self.codec not in codecs.RESIDUALS:
            raise ValueError(f"train must be for a codec of residuals; got codec {self.codec!r}")
        if centroids is not None and checks.positive_int(centroids, "centroids") > kmeans.MOST:
            raise ValueError(f"centroids must be at most {kmeans.MOST}; got {centroids}")
        with self._change() as contents:
            if contents.n_rows:
                raise ValueError(f"train must come before documents are added; the index holds {contents.n_rows}")
            sample = chunks.first_tokens(chunks.documents(docs, None, self.dim), TRAIN_SAMPLE)
            store = contents.store.trained([part for part, _ in sample], TRAIN_SAMPLE, centroids)
            if store.untrained:
                raise ValueError("docs must hold at least one token to train on; got none")
            self._contents = replace(contents, store=store, cache={})

    @exact.arithmetic()
    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        groups: Any = None,
        per_group: int = 1,
        after: Any = None,
        threshold: Any = None,
        bias: Any = None,
        reduce: str = "sum",
        query_weights: Any = None,
        temperature: float | None = None,
        precision: str = "exact",
        rescore: int | None = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """The k best documents of each query; queries, ``reduce``, weights and temperature as for
        `pyengine.maxsim_topk`, filters as for `pyengine.topk`. ``ids`` of the result are those given to `add`, and ties
        go to the smaller of them. ``mask``, ``bias`` and ``groups`` follow the order of `ids`."""
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(
            queries, k, mask=mask, filters=filters, bias=bias, reduce=reduce, query_weights=query_weights,
            temperature=temperature, num_threads=num_threads,
        )  # fmt: skip
        return run(problem, self._backend(backend), precision, like=kind(queries), rescore=rescore)

    @exact.arithmetic()
    def rerank(
        self,
        queries: Any,
        candidates: Any,
        k: int = 10,
        *,
        exclude: Any = None,
        threshold: Any = None,
        bias: Any = None,
        reduce: str = "sum",
        query_weights: Any = None,
        temperature: float | None = None,
        missing: str = "error",
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """The k best of the ``candidates`` of each query: another search's `TopK`, Q arrays of ids, or int [Q, C]; -1
        is a pad. Only their tokens are read, where they lie.

        An id that is not in the index is a ValueError, or with ``missing="skip"`` left out, as where others may have
        removed it meanwhile. The other arguments, result and errors are those of `search`."""
        checks.choice(missing, "missing", ("error", "skip"))
        filters = FilterArguments(exclude=exclude, threshold=threshold)
        problem = self._problem(
            queries, k, filters=filters, bias=bias, reduce=reduce, query_weights=query_weights,
            temperature=temperature, num_threads=num_threads,
        )  # fmt: skip
        ranked = partial(rerank, lists=candidate_lists(candidates, problem, skip_unknown=missing == "skip"))
        return TopK(*(as_input(part, kind(queries)) for part in answer(problem, self._backend(backend), ranked)))

    @exact.arithmetic()
    def scores(
        self,
        queries: Any,
        *,
        reduce: str = "sum",
        query_weights: Any = None,
        temperature: float | None = None,
        bias: Any = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """The score of every query with every document, float32 [Q, len(self)] in the order of `ids`: those of
        `pyengine.maxsim`, made from the tokens as they are kept, which are not copied. Arguments and errors as there.
        """
        problem = self._problem(
            queries, 1, bias=bias, reduce=reduce, query_weights=query_weights, temperature=temperature,
            num_threads=num_threads,
        )  # fmt: skip
        return as_input(answer(problem, self._backend(backend), matrix), kind(queries))

    @exact.arithmetic()
    def pairs(
        self,
        queries: Any,
        pairs: Any,
        *,
        reduce: str = "sum",
        query_weights: Any = None,
        temperature: float | None = None,
        bias: Any = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """The scores, float32 [P], of ``pairs``, int [P, 2]: the number of a query and the id of a document, in any
        order. Only the tokens of these documents are read, where they lie. The other arguments and the errors are those
        of `scores`; an id that is not in the index is a ValueError."""
        problem = self._problem(
            queries, 1, bias=bias, reduce=reduce, query_weights=query_weights, temperature=temperature,
            num_threads=num_threads,
        )  # fmt: skip
        chosen = pair_list(pairs)

        def pairs_of(part: slice) -> tuple[I64, I64]:
            owner = numbers_of(chosen[part, 0], "pairs[:, 0]", problem.n_queries, "queries")
            return owner, rows_of(chosen[part, 1], "pairs[:, 1]", problem)

        return as_input(listed(problem, self._backend(backend), len(chosen), pairs_of), kind(queries))

    @exact.arithmetic()
    def explain(
        self,
        queries: Any,
        k: int = 10,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        groups: Any = None,
        per_group: int = 1,
        after: Any = None,
        threshold: Any = None,
        bias: Any = None,
        reduce: str = "sum",
        query_weights: Any = None,
        temperature: float | None = None,
        precision: str = "exact",
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Plan:
        """The plan of that search, without running it: see `pyengine.DenseIndex.explain`."""
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(
            queries, k, mask=mask, filters=filters, bias=bias, reduce=reduce, query_weights=query_weights,
            temperature=temperature, num_threads=num_threads,
        )  # fmt: skip
        return explain(problem, self._backend(backend), precision)

    def tokens(self, ids: Any) -> Ragged:
        """The token vectors of these documents, decoded: what `pyengine.maxsim_align` takes, for one."""
        contents = self._contents
        return contents.store.decoded(contents.rows_of(checks.id_list(ids)))

    def _problem(self, queries: Any, k: int, **arguments: Any) -> MaxSimProblem:
        if arguments["query_weights"] is not None and arguments["reduce"] == "symmetric":
            raise ValueError(
                "query_weights must come without reduce='symmetric', which has weights of document tokens too, and an "
                "index keeps none; pyengine.maxsim_topk takes both"
            )
        contents = self._contents  # one state of tokens and ids, which later changes leave alone
        ids = contents.row_ids.head(contents.n_rows)
        docs = contents.store.token_documents(contents.n_rows, contents.cache, contents.living)
        return prepare(queries, docs, k, normalize=self.normalize, ids=ids, **arguments)


def _pooler(pool: Any, drop: Any) -> Pooler | None:
    return None if pool is None and drop is None else Pooler(1 if pool is None else pool, "pool")
