import textwrap

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.nlp import PythonDocs, python_docs
from polymamba.data.nlp.python_docs import library_files, module_text

SOURCE = '''
"""About the module.

More."""
import os

class Box(Base, metaclass=Meta):
    """Holds things."""
    size = 3

    def put(self, thing, /, *more: int, at=None) -> bool:
        """Put it in.

            indented
        thing: what
        """
        def hidden(): "inner"
        return True

    def silent(self): pass

async def fetch(): "Get it."
def undocumented(): return "no docstring"
'''

TEXT = '''\
# pack.mod
"""About the module.

More.
"""

class Box(Base, metaclass=Meta):
    """Holds things.
    """

    def put(self, thing, /, *more: int, at=None) -> bool:
        """Put it in.

            indented
        thing: what
        """

async def fetch():
    """Get it.
    """
'''


def test_a_module_as_text():
    assert module_text("pack.mod", SOURCE) == TEXT
    assert module_text("bare", "x = 1\ndef f(): pass\n") == ""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small standard library in place of this Python's."""
    folder = tmp_path / "lib"
    for i in range(40):
        path = folder / "pack" / f"m{i:02}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Module {i}."""\n' + textwrap.dedent(f'def f{i}(x):\n    """Does {"thing " * i}."""\n'))
    for name in ("test/test_it.py", "site-packages/other.py", "pack/tests/t.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('"""Not to be read."""')
    (folder / "wrong.py").write_text("def (:")
    (folder / "pack" / "__init__.py").write_text('"""The package."""')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(folder))
    monkeypatch.setattr(python_docs, "_topics", lambda: iter(["A topic.\n"]))
    return folder


def everything(data):
    return b"".join(bytes(part[i]) for part in data.load().values() for i in range(len(part))).decode()


def test_what_is_collected(library, tmp_path):
    names = [path.name for path in library_files(library)]
    assert names == ["__init__.py", *(f"m{i:02}.py" for i in range(40)), "wrong.py"]
    text = everything(PythonDocs())
    assert "Not to be read" not in text
    assert "# pack\n" in text
    assert "A topic." in text
    assert all(f"# pack.m{i:02}\n" in text for i in range(40))
    [kept] = (tmp_path / "cache" / "python_docs").iterdir()
    before = kept.stat().st_mtime_ns
    assert everything(PythonDocs()) == text
    assert kept.stat().st_mtime_ns == before
    (library / "more.py").write_text('"""Another."""')
    assert "Another." in everything(PythonDocs())


def test_no_sources(library, monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="no source files"):
        PythonDocs().describe()


def test_description_and_loaders(library):
    data = PythonDocs(length=32, loading=Loading(batch_size=4))
    told = data.describe()
    sizes = {"task": "language_modelling", "vocab_size": 257, "length": 32, "model_size": "micro"}
    assert told.for_model == sizes
    total = data.tokens["test"] + len(data.load()["test"])
    assert told.counts["test"] == -(-total // 32)
    assert sum((batch["labels"] >= 0).sum().item() for batch in data.test_dataloader()) == total
    assert sum(len(batch["input_ids"]) for batch in data.test_dataloader()) == told.counts["test"]


def seen(loader):
    return [batch["input_ids"] for batch in loader]


def test_batches_repeat_and_go_on(library):
    first, second = (
        seen(PythonDocs(length=32, loading=Loading(batch_size=4, seed=3)).train_dataloader()) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = seen(PythonDocs(length=32, loading=Loading(batch_size=4, seed=4)).train_dataloader())
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    loader = PythonDocs(length=32, loading=Loading(batch_size=4, seed=3)).train_dataloader()
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    resumed = PythonDocs(length=32, loading=Loading(batch_size=4, seed=3)).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = seen(resumed)
    assert len(rest) == len(first) - 3
    assert all(torch.equal(a, b) for a, b in zip(rest, first[3:], strict=True))
    assert not torch.equal(seen(resumed)[0], first[0])


def test_epochs_cut_the_rows_elsewhere(library):
    data = PythonDocs(length=32, loading=Loading(batch_size=4))
    data.setup()
    positions = np.arange(data.samples("train"))
    first, second = (data.load_batch("train", epoch, positions)["input_ids"] for epoch in (0, 1))
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    assert torch.equal(*(data.load_batch("val", epoch, positions[:1])["input_ids"] for epoch in (0, 1)))


def test_settings(library):
    with pytest.raises(UserError, match=r"data\.length"):
        PythonDocs(length=1)
    limited = PythonDocs(length=16, loading=Loading(batch_size=16, limit=3)).describe()
    assert (limited.counts["train"], limited.counts["val"]) == (3, 3)
    encoded, plain = PythonDocs(tokenizer="bpe", vocab_size=300), PythonDocs()
    plain.setup()
    assert encoded.describe().for_model["vocab_size"] <= 300
    assert encoded.tokens["train"] < plain.tokens["train"]
