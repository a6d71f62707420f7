"""Text data sets: the running Python's documentation (nothing to download), published corpora and labelled texts, the user's
own files, and synthetic tasks of recall."""

from .corpora import TinyShakespeare, WikiText2
from .hub import Hub
from .labelled_sets import IMDB, SST2, Trec
from .python_docs import PythonDocs
from .recall_tasks import MQAR, InductionHeads, SelectiveCopying
from .text_file import TextFile

__all__ = [
    "IMDB",
    "MQAR",
    "SST2",
    "Hub",
    "InductionHeads",
    "PythonDocs",
    "SelectiveCopying",
    "TextFile",
    "TinyShakespeare",
    "Trec",
    "WikiText2",
]
