"""Documents of the other families that a GPU cannot hold, by the Triton kernels: the specification's answers."""

from __future__ import annotations

import pytest

from tests import stream_cases
from tests.stream_cases import CASES, FAMILIES, Streams

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("interpreter", "poison")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    return Streams("triton", monkeypatch, [])


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
