"""Imports of mamba_ssm and causal_conv1d: found where the real packages are absent, never over them unless asked."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from polymamba import compat
from polymamba.compat.names import MODULES


@pytest.fixture
def installed():
    assert importlib.util.find_spec("mamba_ssm") is None
    yield compat.install()
    compat.uninstall()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_there(module):
    found = importlib.import_module(module)
    for name in MODULES[module]:
        assert callable(getattr(found, name)), name
    assert found.__spec__.name == module
    with pytest.raises(AttributeError, match=module):
        _ = found.no_such_name


@pytest.mark.usefixtures("installed")
def test_from_imports():
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm import Mamba
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    from polymamba.compat import convolution, modules, scan

    assert causal_conv1d_fn is convolution.causal_conv1d_fn
    assert Mamba is modules.Mamba
    assert selective_scan_fn is scan.selective_scan_fn


@pytest.mark.usefixtures("installed")
def test_what_copies_of_mamba2_import_says_so_only_where_it_is_used():
    from mamba_ssm.distributed.distributed_utils import all_reduce
    from mamba_ssm.distributed.tensor_parallel import ColumnParallelLinear
    from mamba_ssm.utils.determinism import set_deterministic_mode, use_deterministic_mode

    set_deterministic_mode(False)
    assert use_deterministic_mode()
    for each in (all_reduce, ColumnParallelLinear):
        with pytest.raises(ValueError, match="tensor parallel"):
            each(8, 8, process_group=None)


def test_install_twice_and_uninstall():
    assert compat.install() == compat.install() == ["mamba_ssm", "causal_conv1d"]
    compat.uninstall()
    assert importlib.util.find_spec("mamba_ssm") is None
    compat.uninstall()


def test_a_real_package_is_left_alone_unless_asked(tmp_path, monkeypatch):
    (tmp_path / "mamba_ssm.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.install() == ["causal_conv1d"]
    import mamba_ssm

    assert mamba_ssm.real
    assert "mamba_ssm" in compat.install(force=True)
    import mamba_ssm

    assert mamba_ssm.Mamba.__module__ == "polymamba.compat.modules"
    compat.uninstall()
    assert importlib.import_module("mamba_ssm").real
    del sys.modules["mamba_ssm"]


def test_installing_loads_nothing_heavy():
    code = "import sys, polymamba.compat as c; c.install(); import mamba_ssm; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
