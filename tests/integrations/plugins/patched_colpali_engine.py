"""colpali-engine's late interaction is pyengine's."""

import without_models  # noqa: F401

import pyengine.integrations.colpali_engine

pyengine.integrations.colpali_engine.patch()
