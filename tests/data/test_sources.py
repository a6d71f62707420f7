import subprocess
import sys
from importlib import import_module

import pytest
from domains_under_test import NAMES

from polymamba.data.sources import Source

DIGITS = {"sha256": 64, "md5": 32}  # a publisher may say no other than the second, and no size
MODULES = [import_module(f"polymamba.data.{name}.sources") for name in NAMES]
ALL = [value for module in MODULES for value in vars(module).values() if isinstance(value, Source)]


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.title)
def test_sources_are_complete(source):
    assert source.title
    assert source.licence
    assert source.protocol
    for sums in ([file.checksum for file in source.files], [("sha256", found) for _, found in source.content]):
        assert all(len(found) == DIGITS[kind] and set(found) <= set("0123456789abcdef") for kind, found in sums)
        assert len(set(sums)) == len(sums)
    for file in source.files:
        assert file.size > 0 or file.md5
        assert all(url.partition("?")[0].endswith(file.name) for url in file.urls)


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, polymamba.data, polymamba.data.sources; print(*({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
