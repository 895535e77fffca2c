"""The C++ kernels (csrc/). Arrays must be C-contiguous and of the exact dtype; row numbers and ids are int64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.types import F32, F64, I64, U8

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> str: ...

class Rows:
    def __init__(self, data: NDArray[Any], kind: str, dim: int, planes: int = 0, step: F32 | None = None) -> None: ...

class Corpus:
    def __init__(
        self,
        rows: Rows,
        dims: int,
        metric: str,
        *,
        codes: U8 | None = None,
        code_planes: int = 0,
        scale: F32 | None = None,
        residual: F32 | None = None,
        norms: F64 | None = None,
        prefix_norms: F64 | None = None,
        largest_norm: float = 0.0,
        mask: U8 | None = None,
        bias: F64 | None = None,
        slices: U8 | None = None,
    ) -> None: ...

class Tokens:
    def __init__(
        self,
        rows: Rows,
        offsets: I64,
        *,
        norms: F64 | None = None,
        codes: U8 | None = None,
        code_planes: int = 0,
        scale: F32 | None = None,
        residual: F32 | None = None,
    ) -> None: ...

class TermRows:
    def __init__(
        self,
        offsets: I64,
        terms: NDArray[np.uint16] | NDArray[np.int32],
        values: F32 | NDArray[np.uint16] | U8,
        n_terms: int,
        low: F32 | None = None,
        step: F32 | None = None,
    ) -> None: ...

class Postings:
    def __init__(self, first: int, count: int, **arrays: NDArray[Any]) -> None: ...

def build_postings(
    docs: TermRows, first: int, last: int, terms: NDArray[np.int32] | None = None
) -> dict[str, NDArray[Any]]: ...
def sparse_refine(
    queries: TermRows, docs: TermRows, bias: F64 | None, rows: I64, offsets: I64, num_threads: int
) -> F32: ...
def sparse_propose(
    queries: TermRows,
    docs: TermRows,
    postings: list[Postings],
    k: int,
    width: int,
    *,
    mask: U8 | None = None,
    bias: F64 | None = None,
    floor: F64 | None = None,
    sure: bool = True,
    by_row: bool = False,
    num_threads: int,
) -> tuple[I64, I64, F32, F64]: ...
def maxsim_propose(
    queries: Tokens,
    docs: Tokens,
    k: int,
    *,
    normalize: bool = False,
    reduce: str = "sum",
    query_weights: F32 | None = None,
    mask: U8 | None = None,
    bias: F64 | None = None,
    floor: F64 | None = None,
    ceiling: F64 | None = None,
    tile: int,
    share: int,
    sample: int,
    sample_rank: int,
    width: int,
    query_tokens: int,
    deviations: float,
    num_threads: int,
) -> tuple[I64, I64, F32, F64, I64]: ...
def maxsim_pairs(
    queries: Tokens,
    docs: Tokens,
    pair_queries: I64,
    pair_docs: I64,
    *,
    normalize: bool,
    reduce: str,
    query_weights: F32 | None,
    doc_weights: F32 | None,
    bias: F64 | None,
    argmax: bool,
    temperature: float | None = None,
    num_threads: int,
) -> tuple[F32, NDArray[np.int32] | None, NDArray[np.int32] | None]: ...
def search(
    queries: NDArray[Any],
    docs: NDArray[Any],
    k: int,
    metric: str,
    ids: I64 | None = None,
    norms: F64 | None = None,
    codes: U8 | None = None,
    scale: F32 | None = None,
    residual: F32 | None = None,
    *,
    largest_norm: float = 0.0,
    tile: int = 0,
    sample: int = 0,
    sample_rank: int = 0,
    width: int = 0,
    query_block: int = 0,
    row_queries: int = 0,
    deviations: float = 0.0,
) -> tuple[F32, I64, NDArray[np.bool_]] | None: ...
def quantize(rows: F32, num_threads: int = 1) -> tuple[U8, F32, F32]: ...
def pack_planes(rows: F32, planes: int, num_threads: int = 1) -> tuple[U8, F32, F32, F32]: ...
def norms(rows: Rows, dims: int, num_threads: int = 1) -> F64: ...
def decode(rows: Rows) -> F32: ...
def propose(
    corpus: Corpus,
    queries: F32,
    k: int,
    *,
    tile: int,
    sample: int,
    width: int,
    query_block: int,
    row_queries: int,
    deviations: float,
    num_threads: int,
    floor: F64 | None = None,
    ceiling: F64 | None = None,
    listed: NDArray[np.int32] | None = None,
    query_slices: U8 | None = None,
) -> tuple[I64, I64, F32, F64, I64]: ...
def refine(
    corpus: Corpus, queries: F32, rows: I64, offsets: I64, num_threads: int, query_slices: U8 | None = None
) -> F32: ...
def select(
    scores: F32, rows: I64, offsets: I64, k: int, smaller_is_better: bool, ids: I64 | None = None
) -> tuple[F32, I64]: ...
def exact_topk(
    corpus: Corpus, queries: F32, k: int, ids: I64 | None, num_threads: int, query_slices: U8 | None = None
) -> tuple[F32, I64]: ...
def default_float_state() -> bytes: ...
def restore_float_state(state: bytes) -> None: ...
def peak_int8(num_threads: int) -> float: ...
def read_bandwidth(n_bytes: int, num_threads: int) -> float: ...
def cuda_images() -> list[str]: ...

class CudaDriver:
    def __init__(self, library: str) -> None: ...
    @property
    def count(self) -> int: ...
    def capability(self, device: int) -> int: ...

class CudaDevice:
    def __init__(self, driver: CudaDriver, number: int) -> None: ...
    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def capability(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    def free_bytes(self) -> int: ...
    def owner_of(self, pointer: int) -> int: ...
    def copy_in(self, to: int, array: NDArray[Any], stream: int) -> None: ...
    def copy_out(self, array: NDArray[Any], source: int, stream: int) -> None: ...
    def wait(self, stream: int) -> None: ...
    def launch(
        self, kernel: str, grid: tuple[int, int, int], threads: int, shared: int, stream: int, words: list[int]
    ) -> None: ...
    def tensor_map(self, pointer: int, width: int, rows: int, stride: int, box_rows: int) -> list[int]: ...

class CudaStream:
    def __init__(self, device: CudaDevice) -> None: ...
    @property
    def handle(self) -> int: ...
    def wait(self) -> None: ...

class CudaPinned:
    def __init__(self, device: CudaDevice, n_bytes: int) -> None: ...
    @property
    def array(self) -> NDArray[np.uint8]: ...

class CudaMemory:
    def __init__(self, device: CudaDevice, n_bytes: int, stream: int) -> None: ...
    @property
    def pointer(self) -> int: ...
