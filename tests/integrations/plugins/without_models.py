"""A pytest plugin: lets parts of colpali_engine be imported without its models. The package imports them all, and they
torchvision, which has no build for a torch without CUDA."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

_spec = find_spec("colpali_engine")
if _spec and not find_spec("torchvision"):
    sys.modules["colpali_engine"] = module_from_spec(_spec)  # and is not executed
