"""The running Python's own documentation: what its standard library and its language reference say, as text."""

from __future__ import annotations

import ast
import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Length, Size
from ..files import cached
from ..loading import Loading
from .documents import Documents, divided, from_texts
from .sources import PYTHON_DOCS
from .texts import TextData

# tests, and what is not the standard library's own text
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "lib2to3", "turtledemo", "__pycache__", "pydoc_data"}
INDENT = "    "
LAYOUT = 1


class PythonDocs(TextData):
    """Documentation of this Python's standard library: signatures and docstrings as Python would have them, a document a
    module, and a document for each topic of the language reference that `help()` knows. Nothing to download.

    About 2.5 million bytes; which exactly depends on the Python release, so results are compared within one.

    Args:
        length: tokens in a row.
        tokenizer: bytes, bpe (trained on the training documents), or the path of a tokenizer.json.
        vocab_size: tokens of the byte-pair encoding.
        loading: how batches are made; no worker processes is quickest here.
        name: the data set's name in results.
    """

    source = PYTHON_DOCS

    def __init__(
        self,
        length: Length = 256,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        loading: Loading = Loading(batch_size=16),
        name: str = "python_docs",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)

    def load(self) -> dict[str, Documents]:
        """Collect the documents, or read them from the cache; see `TextData.load`."""
        folder = Path(sysconfig.get_path("stdlib"))
        files = library_files(folder)
        if not files:
            raise UserError(
                "This Python has no source files of its standard library", given=str(folder),
                do="data=text_file data.files=FILE",
            )  # fmt: skip
        path = cached(f"python_docs/{_key(folder, files)}.npz", lambda target: _write(target, folder, files))
        with np.load(path) as stored:
            documents = Documents([stored["content"]], stored["table"])
        train, val, test = divided(documents, (0.05, 0.05), seed=0)
        return {"train": train, "val": val, "test": test}


def library_files(folder: Path) -> list[Path]:
    """The Python files of a standard library, without tests, sorted by their path below the folder."""
    found = (path for path in folder.rglob("*.py") if not LEFT_OUT & set(path.relative_to(folder).parts))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def module_text(name: str, source: str) -> str:
    """A module's documentation as Python would have it: docstrings under the signatures they belong to.

    Args:
        name: dotted name of the module.
        source: its source text.

    Returns:
        the text; "" where nothing in the module is documented.
    """
    lines = list(_block(ast.parse(source), ""))
    return "\n".join([f"# {name}", *lines]).rstrip() + "\n" if lines else ""


def _block(node: ast.AST, indent: str) -> Iterator[str]:
    """The lines of a module, class or function: its docstring, then those of what is documented inside it."""
    docstring = ast.get_docstring(node)
    if docstring:
        lines = docstring.splitlines()
        yield f'{indent}"""{lines[0]}'
        yield from (f"{indent}{line}".rstrip() for line in lines[1:])
        yield f'{indent}"""'
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = list(_block(child, indent + INDENT))
            if inside:
                yield ""
                yield f"{indent}{_signature(child)}"
                yield from inside


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in (*node.bases, *node.keywords))
        return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{kind} {node.name}({ast.unparse(node.args)}){result}:"


def _topics() -> Iterator[str]:
    """The topics of the language reference, as `help()` prints them, sorted by name."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # left out by some distributions
        return
    for _, text in sorted(topics.items()):
        yield text.strip() + "\n"


def _key(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256(f"{LAYOUT} {platform.python_version()}".encode())
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:32]


def _write(target: Path, folder: Path, files: list[Path]) -> None:
    texts = []
    for path in files:
        name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        try:
            texts.append(module_text(name, path.read_text(encoding="utf-8")))
        except (SyntaxError, UnicodeDecodeError):
            continue
    documents = from_texts([*texts, *_topics()])
    with open(target, "wb") as stream:
        np.savez_compressed(stream, content=documents.shards[0], table=documents.table)
