"""Every backend of this machine passes the conformance suite of sliced vectors, on every instruction set."""

from __future__ import annotations

import pytest

from pyengine import conformance
from pyengine.backends import registry

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]


@pytest.mark.parametrize("case", conformance.sliced_cases(), ids=str)
def test_conformance(engine: str, case: conformance.SlicedCase) -> None:
    if registry.of_family(engine, "sliced") is None:
        pytest.skip(f"{engine} has no sliced vectors")
    assert conformance.run(case, engine) == []
