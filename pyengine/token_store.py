"""How an index keeps documents of token vectors: a store of tokens, and where each document's begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import chunks, exact, kmeans, ragged
from pyengine.arrays import GrowingArray
from pyengine.living import Living
from pyengine.problem_maxsim import TokenDocuments, gathered
from pyengine.ragged import Ragged
from pyengine.stores import SHARED, Arrays, Store
from pyengine.types import I64

SAMPLE = 1 << 17  # tokens, of the first documents added, that centroids are made from


class TokenStore(Store):
    """A `Store` whose rows are documents: arrays of tokens as ``tokens`` keeps vectors, ``offsets`` [N+1] of the
    documents among them, and for residual codes ``centroids`` [C, D], which the first tokens are the sample for."""

    def __init__(self, tokens: Store) -> None:
        super().__init__(tokens.name, tokens.form, tokens.coding)
        offsets = GrowingArray(np.int64)
        offsets.append(np.zeros(1, np.int64))
        self.arrays = tokens.arrays | {"offsets": offsets}

    @property
    def offsets(self) -> I64:
        offsets: I64 = self.arrays["offsets"].view
        return offsets

    def reserve(self, count: int) -> None:
        self.arrays["offsets"].reserve(count)  # nobody knows how many tokens

    def append(self, rows: Any, first: int = 0) -> None:
        """Add the documents of a `Ragged`. Raises ValueError for a token with NaN or inf, or beyond the form's range,
        counting documents from ``first``."""
        docs: Ragged = rows
        ragged.finite(docs.values, docs.offsets, "docs", first)
        parts = self.encode(docs.values, "docs", lambda token: ragged.place(docs.offsets, token, first))
        parts["offsets"] = self.offsets[-1] + docs.offsets[1:]
        for name in self._per_token("offsets"):
            self.arrays[name].append(parts[name])

    def _per_token(self, *more: str) -> list[str]:
        """The names of the arrays with one entry per token, and ``more``."""
        return [name for name in self.arrays if name not in ("offsets", *SHARED)] + list(more)

    def readied(self, pieces: Iterator[Any]) -> tuple[TokenStore, Iterator[Any]]:
        if not self.untrained:
            return self, pieces
        first = chunks.first_tokens(pieces, SAMPLE)
        return self.trained([docs for docs, _ in first], SAMPLE), chain(first, pieces)

    @property
    def untrained(self) -> bool:
        """Whether it needs centroids, and has none."""
        return "centroids" in self.arrays and not len(self.arrays["centroids"])

    @exact.arithmetic()
    def trained(self, docs: Sequence[Ragged], most: int, count: int | None = None) -> TokenStore:
        """The same, with ``count`` centroids (default: `kmeans.count_for`) of the first ``most`` of these tokens."""
        first = 0
        for each in docs:
            ragged.finite(each.values, each.offsets, "docs", first)
            first += len(each)
        sample = np.concatenate([np.empty((0, self.form.dim), np.float32), *(each.values for each in docs)])[:most]
        count = kmeans.count_for(len(sample)) if count is None else min(count, len(sample))
        centroids = kmeans.kmeans(sample, count) if count else sample
        return self.holding(self.arrays | {"centroids": self.arrays["centroids"].adopted(centroids)})

    def truncate(self, size: int) -> None:
        n_tokens = int(self.offsets[size])
        self.arrays["offsets"].truncate(size + 1)
        for name in self._per_token():
            self.arrays[name].truncate(n_tokens)

    def heads(self, count: int) -> Arrays:
        sizes = {name: len(array) for name, array in self.arrays.items() if name in SHARED}
        lengths = self.lengths(count, sizes | {"tokens": int(self.offsets[count])})
        return {name: array.head(lengths[name]) for name, array in self.arrays.items()}

    def chosen(self, count: int, rows: I64 | None) -> dict[str, tuple[NDArray[Any], I64 | None]]:
        heads = self.heads(count)
        if rows is None:
            return {name: (head, None) for name, head in heads.items()}
        places, offsets = ragged.taken(heads["offsets"], rows)
        whole: dict[str, tuple[NDArray[Any], I64 | None]] = {name: (heads[name], None) for name in self.share}
        return {name: (heads[name], places) for name in self._per_token()} | whole | {"offsets": (offsets, None)}

    def picked(self, rows: I64) -> TokenStore:
        places, offsets = ragged.taken(self.offsets, rows)
        arrays = {name: self.arrays[name].picked(places) for name in self._per_token()}
        return self.holding(self.arrays | arrays | {"offsets": self.arrays["offsets"].adopted(offsets)})

    def token_documents(self, count: int, cache: dict[Any, Any], living: Living | None) -> TokenDocuments:
        """The first ``count`` documents as a backend sees them; later changes do not show in it."""
        heads = self.heads(count)
        tokens = self.view(heads, cache.setdefault("tokens", {}))
        return TokenDocuments(tokens, heads["offsets"], cache=cache, living=living)

    def decoded(self, rows: I64) -> Ragged:
        """The tokens of these documents as float32; beyond them little memory is taken."""
        tokens = self.form.rows({name: array.view for name, array in self.arrays.items()})
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[rows])])
        values, filled = np.empty((offsets[-1], self.form.dim), np.float32), 0
        for places in gathered(self.offsets, rows, self.form.dim):
            values[filled : filled + len(places)] = tokens[places]
            filled += len(places)
        return Ragged(values, offsets)

    def nbytes(self, count: int) -> int:
        return sum(head.nbytes for head in self.heads(count).values())

    @property
    def sizes(self) -> tuple[str, ...]:
        return ("tokens", *self.share)

    def sizes_of(self, lengths: Mapping[str, int]) -> dict[str, int]:
        return {"tokens": lengths[self._per_token()[0]]} | {name: lengths[name] for name in self.share}

    def lengths(self, count: int, sizes: Mapping[str, int]) -> dict[str, int]:
        """``sizes`` are the numbers of tokens, and of what all share."""
        whole = {name: sizes[name] for name in self.share}
        return dict.fromkeys(self._per_token(), sizes["tokens"]) | whole | {"offsets": count + 1}

    def flaw(self, heads: Arrays) -> str | None:
        offsets, n_tokens = heads["offsets"], len(heads[self._per_token()[0]])
        if offsets[0] == 0 and offsets[-1] == n_tokens and (offsets[1:] >= offsets[:-1]).all():
            return super().flaw(heads)
        return f"offsets that rise from 0 to its {n_tokens} tokens"
