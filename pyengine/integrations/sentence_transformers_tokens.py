"""Queries and documents of tokens as sentence-transformers has them: lists, or padded with masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyengine import checks
from pyengine.inputs.ragged import Ragged
from pyengine.types import F32, I64


class Side(NamedTuple):
    """Queries or documents: a list of [L_i, D], or [n, L, D] with a mask [n, L] of numbers."""

    name: str
    rows: Any
    mask: np.ndarray | None = None

    def part(self, chosen: slice) -> Ragged:
        if self.mask is None:
            rows = self.rows[chosen]
            if all(map(checks.is_torch, rows)) and len({(row.dtype, *row.shape[1:]) for row in rows}) == 1:
                return Ragged(_joined(rows), np.cumsum([0, *map(len, rows)]))  # faster than one by one
            return Ragged.of(rows, self.name, first=chosen.start)
        return Ragged.padded(self.rows[chosen], self.mask[chosen] != 0, self.name)

    def lengths(self) -> I64:
        """int64 [n]: the numbers of tokens."""
        if self.mask is None:
            return np.array([len(row) for row in self.rows], np.int64)
        return np.asarray(np.count_nonzero(self.mask, axis=1), np.int64)

    def weights(self) -> F32 | None:
        """float32 [T], one for each token, where the mask has others than 0 and 1."""
        if self.mask is None or np.isin(self.mask, (0, 1)).all():
            return None
        return np.asarray(self.mask[self.mask != 0], np.float32)

    def tensors(self, device: Any) -> tuple[Any, Any]:
        """[n, L, D] and bool [n, L] on a device, with gradients."""
        import torch

        if self.mask is not None:
            rows, mask = torch.as_tensor(self.rows), torch.as_tensor(self.mask != 0)
        else:
            lengths = torch.from_numpy(self.lengths())
            rows = padded(self.rows)
            mask = torch.arange(rows.shape[1]) < lengths[:, None]
        known = rows.dtype in (torch.float16, torch.bfloat16, torch.float32)
        return (rows if known else rows.float()).to(device), mask.to(device)


def side(embeddings: Any, mask: Any, name: str) -> Side:
    """What the caller gave as one side, checked but for its values. In a list nothing is a token beyond an item's end,
    whatever the mask says."""
    if isinstance(embeddings, (list, tuple)):
        if mask is None or not embeddings:
            return Side(name, list(embeddings))
        lengths = np.array([len(each) for each in embeddings])
        numbers = _numbers(mask, name, (len(lengths), int(lengths.max())))
        return Side(name, padded(embeddings), np.where(np.arange(lengths.max()) < lengths[:, None], numbers, 0))
    if embeddings.ndim == 2:
        embeddings = embeddings[None]
        mask = mask[None] if getattr(mask, "ndim", 0) == 1 else mask
    if embeddings.ndim != 3:
        raise ValueError(f"{name} must be [n, L, D], a list of [L, D], or [L, D]; got shape {tuple(embeddings.shape)}")
    if mask is None:
        return Side(name, embeddings, _not_zero(checks.host_array(embeddings, name)))
    return Side(name, embeddings, _numbers(mask, name, tuple(embeddings.shape[:2])))


def _not_zero(rows: np.ndarray) -> np.ndarray:
    """bool [n, L]: which rows of [n, L, D] are not zeros. Almost always the first number tells."""
    real = (rows[..., :1] != 0).any(-1)
    real[~real] = (rows[~real] != 0).any(-1)
    return np.asarray(real)


def _joined(rows: Any) -> Any:
    import torch

    return torch.cat(rows)


def _numbers(mask: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
    """A mask of one side as [n, L]."""
    if isinstance(mask, (list, tuple)):
        mask = padded(mask)
    elif not checks.is_torch(mask) and not isinstance(mask, np.ndarray):
        raise TypeError(f"{name}_mask must be a tensor, an array, or a list of one per item; got {mask!r}")
    numbers = checks.host_array(mask, f"{name}_mask")
    if numbers.shape[-1:] != shape[1:]:
        raise ValueError(f"{name}_mask must have {shape[1]} tokens, as wide as {name}; got shape {numbers.shape}")
    if numbers.shape not in (shape, (1, shape[1])):
        raise ValueError(f"{name}_mask must have shape {shape}; got {numbers.shape}")
    return np.broadcast_to(numbers, shape)


def stacked(embeddings: Any) -> Any:
    """One tensor."""
    import torch

    if isinstance(embeddings, (list, tuple)):
        return torch.stack([torch.as_tensor(each) for each in embeddings])
    return torch.as_tensor(embeddings)


def padded(rows: Any) -> Any:
    """One tensor [n, L, ...] of rows [L_i, ...], with zeros behind them."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)


def device_of(embeddings: Any) -> Any:
    """Where tensors are; None for others."""
    first = embeddings[0] if isinstance(embeddings, (list, tuple)) and embeddings else embeddings
    return first.device if checks.is_torch(first) else None
