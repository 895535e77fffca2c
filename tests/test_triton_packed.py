"""Tokens of few bits in Triton: decoded in registers as `Rows` decodes them, by the refining and by the scan."""

from __future__ import annotations

import numpy as np
import pytest

from pyengine.indexes import codecs
from pyengine.indexes.token_store import SAMPLE, TokenStore
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import TokenDocuments
from pyengine.refining import exact
from pyengine.specification import reference

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
from pyengine.backends.triton import triton_packed, triton_tokens  # noqa: E402
from pyengine.kernels import maxsim_refine  # noqa: E402
from pyengine.kernels.maxsim_codes import PackedTokens, _document_codes  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter", "poison")
N = 37


def planes(bits: int, dim: int, residual: bool, rng: np.random.Generator) -> Rows:
    data = rng.integers(0, 256, (N, bits * (-(-dim // 64) * 64) // 8), dtype=np.uint8)
    scale = 10.0 ** rng.uniform(-3, 3, N)
    step = (rng.random(N) * scale).astype(np.float32)
    step[3] = 0
    if not residual:
        step[4:6] = 1e-44, 1e37
        return Rows("planes", data, dim, step, bits)
    centroids = rng.standard_normal((5, dim)).astype(np.float32)
    upper = (step.view(np.uint32) >> 16).astype(np.uint16)
    return Rows("residual", data, dim, upper, bits, rng.integers(0, 5, N).astype(np.uint16), centroids)


FORMS = [(bits, residual) for bits in (1, 2, 3, 4) for residual in (False, True)]


def documents(rows: Rows) -> TokenDocuments:
    return TokenDocuments(Documents(rows), np.array([0, 3, 3, N]), cache={})


@pytest.mark.parametrize("dim", [1, 130])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_values_and_norms_are_those_of_the_rows(bits: int, residual: bool, dim: int) -> None:
    rows = planes(bits, dim, residual, np.random.default_rng(dim))
    want, docs = rows[:] + np.float32(0), documents(rows)  # no -0.0, which no sum can tell
    assert triton_packed.values(triton_packed.held(docs), slice(0, N)).numpy().tobytes() == want.tobytes()
    norms = maxsim_refine.norms(triton_packed.token_sets(docs)).numpy()
    assert norms.tobytes() == np.sqrt(reference.dot(want, want)).tobytes()


@triton.jit  # type: ignore[untyped-decorator]
def decode(  # type: ignore[no-untyped-def]
    out, words, steps, centroid, centroids, scale, most, apart, count, dims,
    BITS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,  # type: ignore[name-defined]
):  # fmt: skip
    source = (words, steps, centroid, centroids, scale, most, apart)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    for first in range(0, dims, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        value = _document_codes(source, rows, rows < count, first, dims, BITS, BLOCK_K)
        tl.store(out + rows[:, None] * dims + k[None, :], value, mask=(rows < count)[:, None] & (k < dims)[None, :])


@pytest.mark.parametrize("dim", [130])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_the_scan_decodes_what_was_measured(bits: int, residual: bool, dim: int) -> None:
    rows = planes(bits, dim, residual, np.random.default_rng(dim))
    own = triton_packed.scanned(triton_packed.held(documents(rows)), -(-dim // 64) * 64)
    out = torch.full((N, own.shape[1]), torch.nan, dtype=torch.float16)
    decode[(3,)](out, *own.arguments(), N, own.shape[1], BITS=own.bits, BLOCK_N=16, BLOCK_K=64)
    want = own.decoded(slice(0, N))
    assert out.numpy().tobytes() == want.numpy().tobytes()
    near = own.unit * want[:, :dim].double().numpy()
    reach = np.abs(rows[:]).max(axis=1, keepdims=True) + 2 * np.abs(own.centroids.float().numpy()).max() * own.unit
    assert (np.abs(near - rows[:]) <= 2.0**-9 * reach + 2.0**-24 * own.unit).all()  # not far off, either


@pytest.mark.skipif(exact.native() is None, reason="codecs need the extension")
@pytest.mark.parametrize(("codec", "each"), [("binary", 26), ("residual1", 26), ("residual2", 42), ("residual4", 74)])
def test_a_token_takes_its_bits_on_the_device(codec: str, each: int) -> None:
    """A few bytes a token, beside the centroids and what documents take; not 2 D and 4 D."""
    docs = Ragged(np.random.default_rng(0).standard_normal((N, 128)).astype(np.float32), np.array([0, 3, 3, N]))
    store = TokenStore(codecs.make(codec, None, 128))
    store = store.trained([docs], SAMPLE) if store.untrained else store
    store.append(docs)
    held = store.token_documents(len(docs), {}, None)
    own, sets = triton_tokens._mirror(held, False, torch.device("cpu")), triton_packed.token_sets(held)
    assert isinstance(own.codes, PackedTokens)
    assert sets.packed is not None
    tensors: dict[int, int] = {}
    for tensor in (own.weights, *own.codes, *sets, *sets.packed):
        if isinstance(tensor, torch.Tensor) and len(tensor) == N:
            tensors[tensor.data_ptr()] = tensor.nbytes
    assert sum(tensors.values()) <= N * each
    assert own.codes.words.data_ptr() == sets.rows.data_ptr()
