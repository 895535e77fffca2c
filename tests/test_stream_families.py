"""Documents of the other families that a GPU cannot hold, by each backend's kernels: the specification's answers."""

from __future__ import annotations

import pytest

from tests import stream_cases
from tests.stream_cases import CASES, FAMILIES, Streams

KERNELS = {"cuda": "emulated", "triton": "interpreter"}  # and what runs them


@pytest.fixture(params=KERNELS)
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Streams:
    for each in (KERNELS[request.param], "poison"):
        request.getfixturevalue(each)
    return Streams(request.param, monkeypatch, [])


@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_specification_s(case: str, streams: Streams) -> None:
    streams.check(CASES[case]())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_parts_rule_out_most_of_the_others(family: str, streams: Streams) -> None:
    stream_cases.check_floor(streams, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_searches_in_a_row(family: str, streams: Streams) -> None:
    stream_cases.check_again(streams, family)


def test_a_document_that_is_larger_than_a_part(streams: Streams) -> None:
    stream_cases.check_too_large_a_document(streams)


@pytest.mark.parametrize("family", FAMILIES)
def test_explain(family: str, streams: Streams) -> None:
    stream_cases.check_explained(streams, family)
