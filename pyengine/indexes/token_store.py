"""How an index keeps documents of token vectors: a store of tokens, and where each document's begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pyengine.indexes import chunks, kmeans
from pyengine.indexes.ragged_store import RaggedStore, offsets_array
from pyengine.indexes.stores import Store
from pyengine.inputs import ragged
from pyengine.inputs.living import Living
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem_maxsim import TokenDocuments, gathered
from pyengine.refining import exact
from pyengine.types import I64

SAMPLE = 1 << 17  # tokens, of the first documents added, that centroids are made from


class TokenStore(RaggedStore, Store):
    """A `Store` whose rows are documents: arrays of tokens as ``tokens`` keeps vectors, where each document's begin,
    and for residual codes ``centroids`` [C, D], which the first tokens are the sample for."""

    unit = "tokens"

    def __init__(self, tokens: Store) -> None:
        super().__init__(tokens.name, tokens.form, tokens.coding)
        self.arrays = tokens.arrays | {"offsets": offsets_array()}

    def append(self, rows: Any, first: int = 0) -> None:
        """Add the documents of a `Ragged`. Raises ValueError for a token with NaN or inf, or beyond the form's range,
        counting documents from ``first``."""
        docs: Ragged = rows
        ragged.finite(docs.values, docs.offsets, "docs", first)
        parts = self.encode(docs.values, "docs", lambda token: ragged.place(docs.offsets, token, first))
        self.extend(parts, docs.offsets)

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
