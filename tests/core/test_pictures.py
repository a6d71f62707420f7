"""Writing pictures."""

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from polymamba.core.pictures import save_figure


def test_a_picture_replaces_the_one_before_it_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_figure(Figure(figsize=(2, 1), dpi=50), path)
    assert imread(path).shape[:2] == (50, 100)

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="full"):
        save_figure(Figure(), path)
    assert imread(path).shape[:2] == (50, 100)
