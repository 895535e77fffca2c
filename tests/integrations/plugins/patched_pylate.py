"""PyLate's scores and rerank are pyengine's."""

import pyengine.integrations.pylate

pyengine.integrations.pylate.patch()
