import subprocess
import sys

PROGRAM = """
import sys
from polymamba.engine.command_line.startup import import_torchmetrics
import_torchmetrics()
import lightning.pytorch
assert 'torchmetrics' in sys.modules
assert 'scipy.signal' not in sys.modules and 'scipy.stats' not in sys.modules
import scipy.signal
print(len(scipy.signal.windows.hamming(8)))
"""


def test_scipy_signal_is_left_out_and_works_afterwards():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "8", result.stderr


def test_a_quick_start_leaves_python_as_it_was():
    program = """
import gc, sys
from polymamba.engine.command_line.startup import quick_start
try:
    with quick_start():
        import omegaconf
        assert not gc.isenabled()
        raise KeyError
except KeyError:
    pass
import attr
print(gc.isenabled(), omegaconf.OmegaConf.create({"a": 1}).a, attr.__name__)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "True 1 attr", result.stderr


def test_nor_does_a_run_import_it():
    program = """
import sys
from polymamba.engine.command_line.main import run
try:
    run(None, None, [])
except AttributeError:  # no config
    print(sorted({"lightning.pytorch", "scipy.signal", "scipy.stats"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "['lightning.pytorch']", result.stderr
