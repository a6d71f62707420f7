"""The door of `make gpu`: makes this checkout importable as polymamba, whatever is installed, and runs.

A script, since a machine with a card may have no network, and so nothing to install the project with.
"""

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    polymamba = types.ModuleType("polymamba")
    polymamba.__path__ = [str(ROOT)]  # the top-level folders are its packages
    sys.modules["polymamba"] = polymamba
    sys.path[0] = str(ROOT / "tests" / "support")  # in place of this script's folder

    from polymamba.benchmarks.gpu.command import main

    sys.exit(main(sys.argv[1:]))
