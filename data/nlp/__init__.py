"""Text data sets: the running Python's documentation (nothing to download)."""

from .python_docs import PythonDocs

__all__ = ["PythonDocs"]
