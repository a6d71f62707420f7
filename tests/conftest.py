import importlib.util
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden():
    """The module that fills a model from its tensors' names and compares its answers with the original code's records."""
    folder = Path(os.environ.get("POLYMAMBA_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not (folder / "fill.py").exists():
        pytest.skip(f"no records of the original implementations at {folder} (POLYMAMBA_GOLDEN says where)")
    spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
