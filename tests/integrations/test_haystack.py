"""The document store for Haystack."""
from __future__ import annotations
import numpy as np
from dataclasses import replace
from typing import Any
import pytest
pytest.importorskip("haystack")
from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing import document_store as library, document_store_async as library_async
from pyengine.integrations.haystack import PyengineDocumentStore
from pyengine.integrations.haystack_retrievers import *

class OurStore:
    @pytest.fixture
    def document_store(self): return PyengineDocumentStore()
    @staticmethod
    def assert_documents_are_equal(received, expected):
        rounded = [each.embedding if each.embedding is None else np.float32(each.embedding) for each in expected]
        assert received == [replace(each, embedding=embedding) for each, embedding in zip(expected, rounded)]
class TestOurs(OurStore, library.DocumentStoreBaseExtendedTests, library.CountDocumentsByFilterTest, library.CountUniqueMetadataByFilterTest, library.GetMetadataFieldsInfoTest, library.GetMetadataFieldMinMaxTest, library.GetMetadataFieldUniqueValuesTest):
    def test_write_documents(self, document_store):
        assert document_store.write_documents([Document(id="1")]) == 1
        with pytest.raises(DuplicateDocumentError): document_store.write_documents([Document(id="1")])
ASYNC = [each for name, each in vars(library_async).items() if name.endswith("AsyncTest")]
class TestAsync(OurStore, *ASYNC): pass
