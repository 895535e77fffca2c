"""A pytest plugin: our functions in the place of sentence-transformers'."""

from pyengine.integrations import sentence_transformers

sentence_transformers.patch()
