import asyncio
from typing import Any
import pytest, numpy as np
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from pyengine.integrations.langchain import PyengineVectorStore
class TestOurs(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self): return PyengineVectorStore(self.get_embeddings())
import inspect
for name, test in inspect.getmembers(VectorStoreIntegrationTests, inspect.iscoroutinefunction):
    setattr(TestOurs, name, pytest.mark.asyncio(test))
