import subprocess
import sys
from importlib import import_module

import pytest
from domains_under_test import NAMES

from polymamba.data.sources import Source

MODULES = [import_module(f"polymamba.data.{name}.sources") for name in NAMES]
ALL = [value for module in MODULES for value in vars(module).values() if isinstance(value, Source)]


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.title)
def test_sources_are_complete(source):
    assert source.title
    assert source.licence
    assert source.protocol
    for sums in ([file.sha256 for file in source.files], [sha256 for _, sha256 in source.content]):
        assert all(len(sha256) == 64 and set(sha256) <= set("0123456789abcdef") for sha256 in sums)
        assert len(set(sums)) == len(sums)
    for file in source.files:
        assert file.size > 0
        assert all(url.endswith(file.name) for url in file.urls)


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, polymamba.data, polymamba.data.sources; print(*({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
