"""A reader of the Common Index File Format (Lin et al., SIGIR 2020), a sequence of protobuf messages each after its
length: a header, the postings lists (a term, and documents as gaps with a weight each), the documents' names. Of
protobuf it knows just that: varints, and fields that are varints, bytes, or 4 or 8 bytes wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5  # wire types
HEADER_LISTS, HEADER_DOCS = 2, 3  # field numbers
LIST_TERM, LIST_POSTING = 1, 4
POSTING_GAP, POSTING_WEIGHT = 1, 2
DOC_NUMBER, DOC_NAME = 1, 2

Fields = Iterator[tuple[int, int | bytes]]


def read(path: Path) -> tuple[list[str], list[dict[str, float]]]:
    """The names of the documents, and the weights of each. ValueError for a file that is cut off or not CIFF."""
    data = path.read_bytes()
    try:
        return _index(_messages(data))
    except (IndexError, KeyError, StopIteration, TypeError, UnicodeDecodeError, AttributeError):
        raise ValueError(f"{path} must be a whole CIFF file; it is damaged or another thing") from None


def _index(messages: Iterator[bytes]) -> tuple[list[str], list[dict[str, float]]]:
    header = dict(_fields(next(messages)))
    n_lists, n_docs = int(header.get(HEADER_LISTS, 0)), int(header.get(HEADER_DOCS, 0))
    lists = [_list(next(messages)) for _ in range(n_lists)]
    records = [dict(_fields(next(messages))) for _ in range(n_docs)]
    numbers = [int(record.get(DOC_NUMBER, 0)) for record in records]
    weights: dict[int, dict[str, float]] = {number: {} for number in numbers}
    for term, postings in lists:
        for number, weight in postings:
            weights[number][term] = float(weight)
    return [_text(record[DOC_NAME]) for record in records], [weights[number] for number in numbers]


def _list(message: bytes) -> tuple[str, list[tuple[int, int]]]:
    """A term, and its documents with their weights."""
    term, number, found = "", 0, []
    for field, value in _fields(message):
        if field == LIST_TERM:
            term = _text(value)
        elif field == LIST_POSTING and isinstance(value, bytes):
            posting = dict(_fields(value))
            number += int(posting.get(POSTING_GAP, 0))
            found.append((number, int(posting.get(POSTING_WEIGHT, 0))))
    return term, found


def _text(value: int | bytes) -> str:
    if isinstance(value, int):
        raise TypeError
    return value.decode("utf-8")


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length, at = _varint(data, at)
        yield _slice(data, at, length)
        at += length


def _fields(message: bytes) -> Fields:
    """The number and the value of each field, in their order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        length = {WIDE: 8, NARROW: 4}.get(kind)
        if length is None:
            if kind != BYTES:
                raise TypeError
            length, at = _varint(message, at)
        yield key >> 3, _slice(message, at, length)
        at += length


def _slice(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise TypeError
