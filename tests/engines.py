"""Which backends the tests that go through all of them leave out."""

from __future__ import annotations

import os

SLOW: set[str] = {"triton"} if os.environ.get("TRITON_INTERPRET") == "1" else set()  # interpreted: tests of their own
