"""Moving shapes and folders of videos: what moves, which frames are taken, files, wrong folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import MovingShapes, VideoFolder
from polymamba.data.vision.video_files import Clip, open_clip
from polymamba.data.vision.videos import shown

SMALL = {"train": 16, "val": 8, "test": 8, "loading": Loading(batch_size=4)}


def save(folder, count=5, size=(12, 10), start=0):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (start + 10 * number, 0, 0)).save(folder / f"{number:03}.png")


def film(path, count=6):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_clips_differ_in_the_direction_of_time_alone():
    data = MovingShapes(**SMALL, noise=0)
    data.setup()
    right, left = (data.splits["train"].clips[number].read(list(range(8))).astype(float) for number in (0, 1))
    for video, sign in ((right, 1), (left, -1)):
        still = np.median(video, 0)
        places = [np.abs(frame - still).sum(0) for frame in video[[0, -1]]]
        first, last = (float((place.sum(0) * np.arange(32)).sum() / place.sum()) for place in places)
        assert sign * (last - first) > 2
    assert len(data.describe().for_model["classes"]) == 8
    assert data.splits["test"].labels.tolist() == list(range(8))


def test_batches_are_functions_of_epoch_and_positions():
    data = MovingShapes(**SMALL, frames=4, image_size=(16, 20))
    data.setup()
    videos, labels = data.load_batch("train", 1, np.array([3, 9]))
    assert videos.shape == (2, 3, 4, 16, 20)
    assert labels.tolist() == [3, 1]
    assert torch.equal(data.load_batch("train", 1, np.array([9]))[0][0], videos[1])
    described = data.describe()
    assert described.for_model["frames"] == 4
    assert described.for_model["image_size"] == [16, 20]


def test_clips_for_training_are_made_anew_in_each_epoch():
    data, where = MovingShapes(**SMALL, noise=0), np.arange(8)
    data.setup()
    epochs = [data.load_batch("train", epoch, where) for epoch in (0, 1, 2, 2)]
    assert all(labels.tolist() == list(range(8)) for _, labels in epochs)
    first, second, third, again = (videos for videos, _ in epochs)
    assert (first != second).flatten(1).any(1).all()
    assert (second != third).flatten(1).any(1).all()
    assert torch.equal(third, again)
    assert torch.equal(data.load_batch("test", 0, where)[0], data.load_batch("test", 3, where)[0])


def test_frames_are_spread_over_a_video():
    asked = []
    clip = Clip("x", 100, lambda index: asked.append(index) or np.zeros((len(index), 3, 8, 8), np.uint8))
    shown(clip, 4, (8, 8))
    shown(clip, 4, (8, 8), np.array([0, 0.99, 0, 0.5]))
    shown(Clip("y", 2, clip.read), 4, (4, 6))
    assert asked == [[12, 37, 62, 87], [0, 49, 50, 87], [0, 0, 1, 1]]
    assert shown(clip, 2, (4, 6)).shape == (2, 3, 4, 6)


def test_folders_of_frames(tmp_path):
    for name in ("run", "jump"):
        for number in range(5):
            save(tmp_path / name / f"clip{number}", start=number)
    data = VideoFolder(root=str(tmp_path), frames=3, image_size=8, val_fraction=0.2)
    assert data.describe().counts == {"train": 6, "val": 2, "test": 2}
    assert data.classes == ("jump", "run")
    videos, _ = data.load_batch("test", 0, np.array([0, 1]))
    assert videos.shape == (2, 3, 3, 8, 8)
    red = videos[:, 0, :, 4, 4] * 0.229 + 0.485
    torch.testing.assert_close(red.diff(dim=1), torch.full((2, 2), 20 / 255), atol=1e-4, rtol=0)
    assert [path.name for path in data.photos().find(str(tmp_path / "run"))] == [f"clip{number}" for number in range(5)]


def test_files_of_videos(tmp_path):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            film(tmp_path / part / name / "x.avi")
    data = VideoFolder(root=str(tmp_path), frames=6, image_size=(16, 32), flip=False)
    assert data.describe().counts == {"train": 2, "val": 2, "test": 2}
    grey = data.load_batch("test", 0, np.array([0]))[0][0, 0, :, 8, 8] * 0.229 + 0.485
    torch.testing.assert_close(grey, torch.arange(6) * 40 / 255, atol=0.03, rtol=0)
    assert open_clip(tmp_path / "val" / "a" / "x.avi").length == 6
    (tmp_path / "bad.mp4").write_text("no")
    with pytest.raises(UserError, match=r"Broken video: .*bad.mp4"):
        open_clip(tmp_path / "bad.mp4")


def test_without_pyav_files_are_refused_and_frames_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as caught:
        open_clip(tmp_path / "a.mp4")
    assert "polymamba[video]" in caught.value.do
    save(tmp_path / "frames")
    assert open_clip(tmp_path / "frames").length == 5


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        VideoFolder()
    with pytest.raises(UserError, match="no such folder"):
        VideoFolder(root=str(tmp_path / "none")).describe()
    (tmp_path / "one").mkdir()
    with pytest.raises(UserError, match="does not hold the classes"):
        VideoFolder(root=str(tmp_path)).describe()
    save(tmp_path / "two")
    with pytest.raises(UserError, match="holds no videos"):
        VideoFolder(root=str(tmp_path)).describe()
    with pytest.raises(UserError, match="holds no frames"):
        open_clip(tmp_path / "one")
    save(tmp_path / "mixed")
    Image.new("RGB", (3, 3)).save(tmp_path / "mixed" / "z.png")
    with pytest.raises(UserError, match="differ in size"):
        open_clip(tmp_path / "mixed").read([0, 5])
