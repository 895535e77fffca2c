"""How an index keeps documents of token vectors: a store of tokens, and where each document's begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import ragged
from pyengine.arrays import GrowingArray
from pyengine.living import Living
from pyengine.problem_maxsim import TokenDocuments
from pyengine.ragged import Ragged
from pyengine.stores import Arrays, Store
from pyengine.types import I64


class TokenStore(Store):
    """A `Store` whose rows are documents: arrays of tokens as ``tokens`` keeps vectors, and ``offsets`` [N+1] of the
    documents among them."""

    sizes = ("tokens",)

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
        for name, array in self.arrays.items():
            array.append(parts[name])

    def truncate(self, size: int) -> None:
        n_tokens = int(self.offsets[size])
        for name, array in self.arrays.items():
            array.truncate(size + 1 if name == "offsets" else n_tokens)

    def heads(self, count: int) -> Arrays:
        lengths = self.lengths(count, {"tokens": int(self.offsets[count])})
        return {name: array.head(lengths[name]) for name, array in self.arrays.items()}

    def chosen(self, count: int, rows: I64 | None) -> dict[str, tuple[NDArray[Any], I64 | None]]:
        heads = self.heads(count)
        if rows is None:
            return {name: (head, None) for name, head in heads.items()}
        places, offsets = _taken(heads.pop("offsets"), rows)
        return {name: (head, places) for name, head in heads.items()} | {"offsets": (offsets, None)}

    def picked(self, rows: I64) -> TokenStore:
        places, offsets = _taken(self.offsets, rows)
        arrays = {name: array.picked(places) for name, array in self.arrays.items() if name != "offsets"}
        return self.holding(arrays | {"offsets": self.arrays["offsets"].adopted(offsets)})

    def token_documents(self, count: int, cache: dict[Any, Any], living: Living | None) -> TokenDocuments:
        """The first ``count`` documents as a backend sees them; later changes do not show in it."""
        heads = self.heads(count)
        tokens = self.view(heads, cache.setdefault("tokens", {}))
        return TokenDocuments(tokens, heads["offsets"], cache=cache, living=living)

    def decoded(self, rows: I64) -> Ragged:
        """The tokens of these documents as float32."""
        places, offsets = _taken(self.offsets, rows)
        tokens = self.form.rows({name: array.view for name, array in self.arrays.items()})
        return Ragged(tokens[places], offsets)

    def nbytes(self, count: int) -> int:
        return sum(head.nbytes for head in self.heads(count).values())

    def sizes_of(self, lengths: Mapping[str, int]) -> dict[str, int]:
        return {"tokens": lengths["norms"]}

    def lengths(self, count: int, sizes: Mapping[str, int]) -> dict[str, int]:
        return dict.fromkeys(self.arrays, sizes["tokens"]) | {"offsets": count + 1}

    def flaw(self, heads: Arrays) -> str | None:
        offsets, n_tokens = heads["offsets"], len(heads["norms"])
        if offsets[0] == 0 and offsets[-1] == n_tokens and (offsets[1:] >= offsets[:-1]).all():
            return None
        return f"offsets that rise from 0 to its {n_tokens} tokens"


def _taken(offsets: I64, rows: I64) -> tuple[I64, I64]:
    """Where the tokens of these documents lie, one document after another, and the offsets that they then have."""
    lengths = np.diff(offsets)[rows]
    taken = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(taken[-1]) + np.repeat(offsets[rows] - taken[:-1], lengths), taken
