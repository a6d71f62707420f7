"""Text data sets: the running Python's documentation (nothing to download), published corpora, the user's own files."""

from .corpora import TinyShakespeare, WikiText2
from .python_docs import PythonDocs
from .text_file import TextFile

__all__ = ["PythonDocs", "TextFile", "TinyShakespeare", "WikiText2"]
