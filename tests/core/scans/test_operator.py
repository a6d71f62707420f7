"""The order as an operator: what Scan.order says, for every mode, from the scan's text."""

import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans.modes import MODES
from polymamba.core.scans.operator import scan_order
from polymamba.core.scans.scan import Scan

SIZES = {1: (23,), 2: (9, 8), 3: (8, 9, 10)}
CASES = [(name, ndim) for name, mode in MODES.items() for ndim in mode.ndims]
CASES += [("raster+skip", 2), ("skip(step=2)+skip(step=3)", 2)]


@pytest.mark.parametrize(("name", "ndim"), CASES)
@pytest.mark.parametrize("where", ["none", "middle", "double"])
def test_it_is_the_order_of_the_scan(name, ndim, where):
    scan, grid = scans.get(name), scans.Grid.with_class_token(SIZES[ndim], where)
    expected = scan.order(grid)
    found = scan_order(scan.text, scan.paths(ndim), grid.sizes, grid.extra, torch.device("cpu"))
    assert found.data_ptr() != expected.data_ptr()
    assert found.shape[1] == scan.most_steps(grid.sizes, grid.extra) <= grid.length + 1
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == -1).all()


@pytest.mark.parametrize("layer", [0, 1, 5])
@pytest.mark.parametrize("scan", ["zigzag", "mamba_nd", "local"])
def test_text_is_read_back(scan, layer):
    scan = scans.get(scan).layer(layer)
    assert Scan.of_text(scan.text) == scan
    windows = scans.get("local", window=(2, 3))
    assert Scan.of_text(windows.text) == windows


def test_a_scan_of_one_raster_path_says_so():
    assert scans.get("raster").is_raster
    assert scans.get("mamba_nd").layer(0).is_raster
    assert not scans.get("mamba_nd").layer(1).is_raster
    for name in ("mamba_nd", "reverse", "zigzag", "raster+raster", "cross_uni"):
        assert not scans.get(name).is_raster


def test_opcheck():
    arguments = (scans.get("skip").text, 4, [5, 7], [17], torch.device("cpu"))
    torch.library.opcheck(scan_order, arguments)


def test_another_number_of_paths_is_an_error():
    with pytest.raises(UserError, match="number of paths"):
        scan_order(scans.get("cross").text, 4, [2, 3, 4], [], torch.device("cpu"))
