"""What scorers of documents of tokens share: documents packed or padded for torch, and the best by scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Search, module
from pyengine.inputs.ragged import Ragged

DOCS = 128  # documents padded together where all of them would not fit: what colpali-engine takes at once
FITS = 1 << 30  # bytes of a tensor of products that may be made at once
FROM_0 = "float32; maxima below 0 become 0"


class Packed:
    """Documents as one tensor [T, D] with their lengths [N]."""

    def __init__(self, docs: Ragged, threads: int) -> None:
        self.torch = module("torch")
        self.torch.set_num_threads(threads)
        self.values = self.torch.from_numpy(docs.values)
        self.lengths = self.torch.from_numpy(docs.lengths)

    def search(self, score: Callable[[Any], Any]) -> Search:
        """With ``score`` of one query [Lq, D] against everything, a tensor [N]."""

        def search(queries: Ragged, k: int) -> Any:
            scores = self.torch.stack([score(self.torch.from_numpy(query)) for query in queries])
            return self.torch.topk(scores, k, dim=1)

        return search


class Padded:
    """Documents as tensors [n, Ld, D] with masks [n, Ld]: all in one, or 128 at a time where the products of all with
    so many queries would not fit."""

    def __init__(self, docs: Ragged, threads: int) -> None:
        self.torch = module("torch")
        self.torch.set_num_threads(threads)
        self.rows = [self.torch.from_numpy(row) for row in docs]
        self._made: dict[int, list[tuple[Any, Any]]] = {}

    def parts(self, n_query_tokens: int) -> list[tuple[Any, Any]]:
        longest = max(len(row) for row in self.rows)
        all_fit = 4 * n_query_tokens * len(self.rows) * longest <= FITS
        step = len(self.rows) if all_fit else DOCS
        if step not in self._made:
            self._made = {step: [self._pad(self.rows[at : at + step]) for at in range(0, len(self.rows), step)]}
        return self._made[step]

    def _pad(self, rows: list[Any]) -> tuple[Any, Any]:
        lengths = self.torch.tensor([len(row) for row in rows])
        padded = self.torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, self.torch.arange(padded.shape[1])[None] < lengths[:, None]

    def search(self, score: Callable[[Any, Any, Any], Any]) -> Search:
        """With ``score`` of queries [Q, Lq, D], documents [n, Ld, D] and their mask, a tensor [Q, n]."""

        def search(queries: Ragged, k: int) -> Any:
            rows = [self.torch.from_numpy(query) for query in queries]
            asked = self.torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # a token of zeros adds 0
            scores = [score(asked, *part) for part in self.parts(asked.shape[0] * asked.shape[1])]
            return self.torch.topk(self.torch.cat(scores, dim=1), k, dim=1)

        return search


def best(scores: Any, k: int) -> Answer:
    """The k best documents of each query by its scores [Q, N], ties by smaller id."""
    matrix = np.asarray(scores, np.float32)
    ids = np.argsort(-matrix, axis=1, kind="stable")[:, :k].astype(np.int64)
    return np.take_along_axis(matrix, ids, axis=1), ids
