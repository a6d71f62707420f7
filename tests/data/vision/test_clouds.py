"""Solids sampled here and ModelNet10: what their surfaces are, batches, parts, wrong files."""

import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import ModelNet10, Solids
from polymamba.data.vision.cloud_files import CloudFiles, normalised, on_surface
from polymamba.data.vision.clouds import SURFACES

SMALL = {"train": 20, "val": 10, "test": 10, "loading": Loading(batch_size=4)}
DATA = Path(os.environ.get("POLYMAMBA_DATA", "/nowhere")) / "point_clouds" / "modelnet10_256pts"


def test_surfaces():
    random = np.random.default_rng(0)
    on = {name: surface(random, 500) for name, surface in SURFACES.items()}
    assert all(points.shape == (500, 3) and np.isfinite(points).all() for points in on.values())
    np.testing.assert_allclose(np.linalg.norm(on["sphere"], axis=1), 1)
    np.testing.assert_allclose(np.abs(on["box"]).max(1), 1)
    x, y, z = on["torus"].T
    np.testing.assert_allclose((np.hypot(x, y) - 0.7) ** 2 + z**2, 0.35**2)
    x, y, z = on["cone"].T
    assert (np.hypot(x, y) <= (1 - z) / 2 + 1e-9).all()
    x, y, z = on["cylinder"].T
    assert (np.isclose(np.hypot(x, y), 1) | np.isclose(np.abs(z), 1)).all()
    x, y, z = on["pyramid"].T
    assert (np.maximum(np.abs(x), np.abs(y)) <= np.where(z == -1, 1, (1 - z) / 2) + 1e-9).all()


def test_batches_are_functions_of_epoch_and_positions():
    data = Solids(**SMALL, points=64)
    data.setup()
    points, labels = data.load_batch("train", 3, np.array([2, 5]))
    assert points.shape == (2, 64, 3)
    assert points.dtype == torch.float32
    again, _ = data.load_batch("train", 3, np.array([5]))
    assert torch.equal(points[1], again[0])
    assert labels.tolist() == [2, 5]
    assert not torch.equal(again, data.load_batch("train", 4, np.array([5]))[0])
    plain = Solids(**SMALL, augment=False)
    plain.setup()
    whole = plain.load_batch("test", 0, np.arange(10))[0]
    assert whole.norm(dim=2).amax() < 1.2
    assert torch.equal(data.load_batch("test", 0, np.arange(3))[0], data.load_batch("test", 7, np.arange(3))[0])


def test_no_cloud_is_in_two_parts_and_the_seed_makes_them():
    one, other = Solids(**SMALL), Solids(**SMALL, data_seed=1)
    one.setup(), other.setup()
    clouds = torch.cat([part.points for part in one.splits.values()])
    assert len(clouds.flatten(1).unique(dim=0)) == 40
    assert not torch.equal(one.splits["test"].points, other.splits["test"].points)
    described = one.describe()
    assert described.counts == {"train": 20, "val": 10, "test": 10}
    assert described.for_model["num_classes"] == 10
    assert described.for_model["model_size"] == "micro"


@pytest.mark.skipif(not DATA.is_dir(), reason="$POLYMAMBA_DATA holds no ModelNet10")
def test_modelnet10_as_published():
    data = ModelNet10()
    counts = data.describe().counts
    assert counts["train"] + counts["val"] == 3991
    assert counts["test"] == 908
    points = data.splits["test"].points
    torch.testing.assert_close(points.mean(1), torch.zeros(908, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(points.norm(dim=2).amax(1), torch.ones(908))


def test_modelnet10_that_is_not_there_or_not_what_was_published(tmp_path):
    with pytest.raises(UserError, match=r"train_points_u16.npy is not there"):
        ModelNet10(root=str(tmp_path)).describe()
    with lzma.open(tmp_path / "train_points_u16.npy.xz", "wb") as file:
        np.save(file, np.zeros((1, 256, 3), np.uint16))
    with pytest.raises(UserError, match="wrong checksum"):
        ModelNet10(root=str(tmp_path)).describe()


def test_clouds_in_files(tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "a.npy", points)
    np.savetxt(tmp_path / "b.xyz", np.hstack([points, points]))
    np.savetxt(tmp_path / "c.csv", points, delimiter=",")
    cube = "OFF8 6 0\n" + "\n".join(f"{x} {y} {z}" for x in (0, 1) for y in (0, 1) for z in (0, 1))
    cube += "\n4 0 1 3 2\n4 4 5 7 6\n4 0 1 5 4\n4 2 3 7 6\n4 0 2 6 4\n4 1 3 7 5\n"
    (tmp_path / "d.off").write_text(cube)
    files = CloudFiles(64)
    found = files.find(str(tmp_path))
    assert [path.name for path in found] == ["a.npy", "b.xyz", "c.csv", "d.off"]
    clouds = [files.open(path) for path in found]
    for cloud in clouds[:3]:
        np.testing.assert_allclose(cloud, points, rtol=1e-6)
    assert np.isclose(np.minimum(clouds[3], 1 - clouds[3]).min(1), 0, atol=1e-6).all()
    prepared = files.prepare(clouds)
    assert prepared.shape == (4, 64, 3)
    torch.testing.assert_close(prepared.norm(dim=2).amax(1), torch.ones(4))
    assert torch.equal(prepared, files.prepare(clouds))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xyz", "1 2\n3 4\n", "shape"),
        ("a.xyz", "1 2 x\n", "x"),
        ("a.xyz", "1 2 nan\n", "finite"),
        ("a.off", "OFF 2 1 0\n0 0\n", "holds no"),
        ("a.npy", "no", "holds no"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        CloudFiles(8).open(tmp_path / name)
    assert name in str(caught.value)
    assert said in f"{caught.value} {caught.value.given}"


def test_a_folder_without_clouds(tmp_path):
    with pytest.raises(UserError, match="no clouds"):
        CloudFiles(8).find(str(tmp_path))


def test_meshes_without_an_area_give_their_corners():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    assert set(map(tuple, on_surface(corners, [(0, 1, 2)], 20))) <= set(map(tuple, corners))
    assert np.isfinite(normalised(np.ones((3, 3)))).all()
