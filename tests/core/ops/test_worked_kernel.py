"""The kernel in the toolkit's README does what it says."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from polymamba.core.ops import cpu

README = Path(cpu.__file__).with_name("README.md").read_text(encoding="utf-8")


def test_it_runs_as_it_stands_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "cpu_kernels.py"
    file.write_text(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("worked_kernel", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for shape in ((5, 33), (1, 1), (0, 4), (700, 2)):
        x = torch.randn(shape)
        torch.testing.assert_close(module.row_norms(x), x.norm(dim=1))
        torch.testing.assert_close(module.row_norms(x.double().T.contiguous().T), x.norm(dim=1))
    with pytest.raises(ValueError, match="unpack"):
        module.row_norms(torch.ones(3))


def test_the_table_names_every_file():
    files = {path.name for path in Path(cpu.__file__).parent.glob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"`(\w+\.py)`", README.split("| file |")[1]))
