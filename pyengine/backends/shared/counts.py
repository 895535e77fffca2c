"""How many documents the kernels for GPUs can count, in int32.

A pool's count never exceeds the number of documents scanned so far: each is appended once at most in a search, and what
`tighten` leaves was appended before. Loops over a pool go on by a block of its places, of at most `BLOCK`, beyond the
last of them. So with `MOST` documents neither a count nor the place that comes after it overflows.
"""

from __future__ import annotations

BLOCK = 2048
MOST = (1 << 31) - BLOCK


def too_many(n_docs: int) -> list[str]:
    """A reason to refuse a corpus, none where it can be counted."""
    return [f"its kernels number at most 2^31 - {BLOCK:,} documents"] if n_docs > MOST else []
