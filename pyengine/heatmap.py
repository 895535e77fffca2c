"""Pictures of a MaxSim score: which document token each query token matches, among all the products."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pyengine.searches.maxsim import maxsim_align
from pyengine.specification import reference_maxsim
from pyengine.types import F32, F64, I64

SHADES = " .:-=+*#%@"  # from the smallest product to the largest
COLUMNS = 96  # of the text; document tokens share one, which shows the largest of theirs
INCHES = 0.18  # a cell of the picture
LARGEST = 15.0  # inches, of either side


def available() -> bool:
    """Whether matplotlib is installed, which `save` needs."""
    return find_spec("matplotlib") is not None


def save(
    path: Path | str,
    query: Any,
    doc: Any,
    *,
    normalize: bool = False,
    query_labels: Sequence[str] | None = None,
    doc_labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw the products of all tokens of ``query`` [Lq, D] and ``doc`` [Ld, D], and the winner of each query token.

    The kind of picture is that of the suffix: .png, .pdf, .svg. The labels name tokens, which are numbered otherwise.
    Arguments and errors are those of `maxsim_align`; ImportError without matplotlib.
    """
    products, winners = _aligned(query, doc, normalize)
    if not available():
        raise ImportError("a heatmap needs matplotlib: pip install 'pyengine-search[plot]'")
    from matplotlib.figure import Figure

    height, width = (min(LARGEST, 1.5 + INCHES * n_tokens) for n_tokens in products.shape)
    figure = Figure(figsize=(1.0 + width, height), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="document token", ylabel="query token")
    image = axes.imshow(products, aspect="auto", cmap="viridis")
    axes.plot(winners, np.arange(len(winners)), "r.", markersize=5)
    for axis, labels in ((axes.xaxis, doc_labels), (axes.yaxis, query_labels)):
        if labels is not None:
            axis.set_ticks(range(len(labels)), labels)
    axes.tick_params("x", rotation=0 if doc_labels is None else 90)
    figure.colorbar(image, pad=0.01, label="cosine" if normalize else "product")
    figure.savefig(path, dpi=120)


def text(query: Any, doc: Any, *, normalize: bool = False) -> str:
    """The same in characters: a line per query token, with the number of its winner and their product at its end."""
    products, winners = _aligned(query, doc, normalize)
    if not products.size:
        return "no tokens"
    n_columns = min(COLUMNS, products.shape[1])
    column_of = np.arange(products.shape[1]) * n_columns // products.shape[1]
    cells = np.maximum.reduceat(products, np.searchsorted(column_of, np.arange(n_columns)), axis=1)
    low, high = cells.min(), cells.max()
    levels = ((cells - low) / max(high - low, np.finfo(float).tiny) * (len(SHADES) - 1)).round().astype(int)
    return "\n".join(
        f"{i:4} |{''.join(SHADES[level] for level in levels[i])}| {winner:4} {products[i, winner]:7.3f}"
        for i, winner in enumerate(winners)
    )


def _aligned(query: Any, doc: Any, normalize: bool) -> tuple[F64, I64]:
    """float64 [Lq, Ld] and the winners int64 [Lq], the arguments checked."""
    winners = np.asarray(maxsim_align(query, doc, normalize=normalize).tokens)
    rows: tuple[F32, F32] = (np.asarray(query, np.float32), np.asarray(doc, np.float32))
    return reference_maxsim.similarities(*rows, normalize), winners
