"""Files of vectors: ``.npy``; ``.fvecs``, ``.bvecs`` and ``.ivecs`` (each row int32 D, then D values: TEXMEX, Jegou et
al., 2011); and the HDF5 of ann-benchmarks (Aumueller et al., 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.datasets.collection import Collection, Rows, numbered
from pyengine import checks
from pyengine.types import F32

VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
SUFFIXES = (".npy", *VECS)
HDF5 = (".hdf5", ".h5")
METRICS = {"angular": "cosine", "cosine": "cosine", "euclidean": "l2", "dot": "dot", "ip": "dot"}


def read(path: Path) -> F32:
    """The vectors of a file, float32 [n, D]; ValueError naming it where it is none, or has NaN or inf."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"a file of vectors must end in {', '.join(SUFFIXES)}; got {path}")
    return _checked(read_npy(path) if path.suffix == ".npy" else read_vecs(path), str(path))


def _checked(rows: NDArray[Any], where: str) -> F32:
    """The same in float32; ``where`` begins the sentence that says what is wrong with them."""
    found = checks.vectors(rows, where)
    if not len(found):
        raise ValueError(f"{where} must hold at least one vector; it has none")
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise ValueError(f"{where}: row {int(np.argmin(finite))} has NaN or inf")
    return found


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, whole."""
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile):
        raise ValueError(f"{path} must be a .npy file with an array of numbers; it is damaged or not one") from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} must be a .npy file with one array; it is an archive")
    return found


def read_vecs(path: Path) -> NDArray[Any]:
    """[n, D] of a .fvecs, .bvecs or .ivecs file, in its own type."""
    dtype = VECS[path.suffix]
    raw = np.fromfile(path, np.uint8)
    if len(raw) < 4:
        raise ValueError(f"{path} must begin with a dimension, an int32; it has {len(raw)} bytes")
    dim = int(raw[:4].view("<i4")[0])
    width = 4 + dim * dtype.itemsize
    if dim < 1 or len(raw) % width:
        raise ValueError(
            f"{path} must hold whole rows of one dimension; it begins with dimension {dim} and has {len(raw)} bytes"
        )
    rows = raw.reshape(-1, width)
    dims = np.ascontiguousarray(rows[:, :4]).view("<i4")[:, 0]
    if (dims != dim).any():
        raise ValueError(f"{path}: row {int(np.argmax(dims != dim))} has another dimension than {dim}")
    values: NDArray[Any] = np.ascontiguousarray(rows[:, 4:]).view(dtype)
    return values


def read_hdf5(path: Path) -> Collection:
    """A file of ann-benchmarks: ``train`` are the documents, ``test`` the queries, ``distance`` is the metric.
    Its lists of neighbours are not read: the truth is computed. Needs the package h5py."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{path} needs the package h5py: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            absent = [name for name in ("train", "test") if name not in file]
            if absent:
                raise ValueError(f"{path} must have the data set {absent[0]!r}, as those of ann-benchmarks have")
            distance = str(file.attrs.get("distance", "angular"))
            docs, queries = (_checked(np.asarray(file[name]), f"{path}, {name}") for name in ("train", "test"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error})") from None
    if distance not in METRICS:
        raise ValueError(f"{path} must have one of the distances {', '.join(METRICS)}; got {distance!r}")
    names = numbered(len(docs)), numbered(len(queries))
    return Collection(path.stem, Rows(docs), Rows(queries), *names, metric=METRICS[distance])
