"""The contestants that take one form of the CUDA dense scan each."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ours import contestants
from bench.ours.cuda_forms import in_form, of_signs
from bench.workloads.data import signs
from pyengine.types import I64
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows


def searched(form: str) -> I64:
    run = in_form(contestants.index("float32", "cuda"), form).prepare(rows(1, 50, 16), "dot", 1)
    return np.asarray(run(rows(2, 20, 16), 3)[1])


def test_forms(emulated: FakeDriver) -> None:
    assert in_form(contestants.index("int8", "cuda"), "sm_90").name.endswith("-sm_90")
    assert np.array_equal(searched("sm_80"), searched("sm_90"))
    assert np.array_equal(searched("sm_80"), searched("float32"))
    assert launched(emulated) == ["dense_64", "dense_64_sm90", "dense_64", "dense_16_float32"]


def launched(driver: FakeDriver) -> list[str]:
    return [line.split()[0] for line in driver.log if line.startswith("dense_")]


def test_bits(emulated: FakeDriver) -> None:
    """Of signs, whose answers are the same; other vectors would be changed."""
    docs, queries = (signs(rows(seed, count, 40)) for seed, count in ((1, 90), (2, 3)))
    want = contestants.index("float32", "cuda").prepare(docs, "dot", 1)(queries, 4)
    found = of_signs().prepare(docs, "dot", 1)(queries, 4)
    assert all(map(np.array_equal, found, want))
    assert launched(emulated) == ["dense_few", "dense_signs_4"]
    with pytest.raises(contestants.Unavailable, match=r"^one bit a dimension would change these vectors$"):
        of_signs().prepare(rows(1, 9, 40), "dot", 1)


def test_a_gpu_that_has_not_both(emulated: FakeDriver) -> None:
    emulated.tell(major=8, minor=6)
    searched("sm_80")
    with pytest.raises(contestants.Unavailable, match=r"^the form sm_90 is of compute capability 9\.0 alone$"):
        searched("sm_90")
