"""Classes of images: tables, pictures, every kind of file, mistakes; what the answers rest on."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import Digits
from polymamba.domains.trained import Trained
from polymamba.domains.vision.models.vim import Vim
from polymamba.domains.vision.predict import classify

RUN = ("data.limit=40", "model.embed_dim=16", "model.depth=1", "model.backend=reference")


@pytest.fixture
def run(make_run):
    return make_run(*RUN)


@pytest.fixture(scope="module")
def trained():
    """A model that nobody trained, of classes that are far apart."""
    torch.manual_seed(0)
    model = Vim(8, 2, in_chans=1, num_classes=3, embed_dim=16, depth=2, scan="raster", backend="reference").eval()
    nn.init.normal_(model.head.weight)
    describe = {"name": "digits", "classes": ["one", "two", "three"], "mean": (0.3052,), "std": (0.3755,), "task": None}
    return Trained(model, None, Digits(), describe, "cpu", None)


def picture(size=(20, 13), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8))


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_photos_of_every_kind(run, command, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    image = picture()
    image.save(folder / "a.png")
    turned = image.transpose(Image.Transpose.ROTATE_90)  # EXIF's 6: to be turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "b_turned.png", exif=exif)
    image.convert("L").save(folder / "c_grey.png")
    image.convert("RGBA").save(folder / "d_alpha.png")
    image.convert("CMYK").save(folder / "e_cmyk.tif")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "f_16.png")
    picture((300, 211)).save(folder / "g_large.jpg")
    (folder / "h_broken.png").write_bytes(b"no image")
    code, printed, message = command(f"ckpt={run}", "input=photos", "pictures=3", "top=4", "output=found")
    assert code == 1, "one image could not be read"
    assert "h_broken.png" in message
    assert "Traceback" not in message
    rows = table(tmp_path / "found" / "predictions.csv")
    assert [row["file"] for row in rows] == [f"photos/{each.name}" for each in sorted(folder.iterdir())[:-1]]
    assert list(rows[0]) == [
        "file",
        "class",
        "confidence",
        "class_2",
        "confidence_2",
        "class_3",
        "confidence_3",
        "class_4",
        "confidence_4",
    ]
    alike = {name: row["confidence"] for row in rows for name in [row["file"][7]]}
    assert alike["a"] == alike["b"] == alike["d"]
    assert alike["c"] == alike["f"]
    for row in rows:
        assert row["class"] in printed
        assert float(row["confidence"]) >= float(row["confidence_2"]) > 0
    drawn = sorted(path.name for path in (tmp_path / "found" / "predictions").iterdir())
    assert drawn == ["0000_a.png", "0001_b_turned.png", "0002_c_grey.png"]
    with Image.open(tmp_path / "found" / "predictions" / drawn[0]) as found:
        assert found.size[0] > 300
    monkeypatch.setattr("polymamba.domains.vision.predict.SHOWN", 2)
    code, printed, _ = command(f"ckpt={run}", "photos/[a-c]*.png", "pictures=0", "output=found", "batch_size=2")
    assert code == 0
    assert "and 1 more images in predictions.csv" in printed
    assert len(table(tmp_path / "found" / "predictions.csv")) == 3


def test_answers_are_the_models_own_on_test_images(run, command, tmp_path):
    """What stands in the table are the softmax of the run's model on the prepared test images, whatever the batch."""
    data = Digits(Loading(batch_size=64, limit=40))
    data.setup()
    (tmp_path / "own").mkdir()
    for number, pixels in enumerate(data.splits["test"].images[:7]):
        Image.fromarray(pixels[0].numpy()).save(tmp_path / "own" / f"{number}.png")
    assert command(f"ckpt={run}", "input=own", "batch_size=3", "pictures=0", "top=10", "output=.")[0] == 0
    from polymamba.domains.vision.models.vim import build
    from polymamba.engine.checkpoints import folder as files

    describe = {"image_size": (8, 8), "channels": 1, "num_classes": 10, "model_size": "micro"}
    model = build(describe, embed_dim=16, depth=1, backend="reference").eval()
    model.load_state_dict(files.read_weights(files.find(run, ("best", "last"))[0]))
    images = next(iter(data.test_dataloader()))[0][:7]
    with torch.no_grad():
        wanted = model(images).softmax(1)
    for row, sure in zip(table(tmp_path / "predictions.csv"), wanted, strict=True):
        assert int(row["class"]) == int(sure.argmax())
        assert float(row["confidence"]) == pytest.approx(float(sure.max()), abs=2e-6)
        assert float(row["confidence_10"]) == pytest.approx(float(sure.min()), abs=2e-6)


def test_in_memory(trained, tmp_path):
    picture().save(tmp_path / "a.png")
    pictures = [picture(), picture((9, 30), 1), tmp_path / "a.png", str(tmp_path / "a.png")]
    found = classify(trained, pictures, top=2, batch_size=3)
    assert [len(each.names) for each in found] == [2] * 4
    for other in found[2:]:
        assert other.names == found[0].names
        assert other.confidences == pytest.approx(found[0].confidences, abs=1e-6)
    assert set(found[0].names) < {"one", "two", "three"}
    photos = trained.data.photos()
    prepared = photos.prepare([photos.open(tmp_path / "a.png"), pictures[1]])
    for again, once in zip(classify(trained, prepared, top=2), found, strict=False):
        assert again.names == once.names
        assert again.confidences == pytest.approx(once.confidences, abs=1e-6)
    trained.model.train()
    [plain, _] = classify(trained.model, prepared, top=9)
    assert trained.model.training
    trained.model.eval()
    assert plain.confidences[:2] == pytest.approx(found[0].confidences, abs=1e-6)
    assert sorted(plain.names) == ["0", "1", "2"]
    assert sum(plain.confidences) == pytest.approx(1, rel=1e-6)
    assert classify(trained, []) == []
    with pytest.raises(UserError, match="how images are prepared"):
        classify(trained.model, [picture()])


@pytest.mark.parametrize("method", ["raw", "rollout", "attribution"])
def test_what_answers_rest_on(run, command, tmp_path, method):
    picture().save(tmp_path / "a.png")
    for given, said in ((["input=a.png"], "of 1 images"), ([], "of 16 test images right")):
        code, printed, message = command(f"ckpt={run}", *given, f"explain={method}", f"output={tmp_path}")
        assert (code, message) == (0, "")
        assert said in printed
        with Image.open(tmp_path / f"explained_{method}.png") as found:
            assert found.size[0] > 300
        assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which image?"),
        (["input=nowhere.jpg"], "no such file or folder"),
        (["input=empty"], "no images in this folder"),
        (["input=*.gif"], "no image matches this pattern"),
        (["input=broken.png"], "none of the images can be read: Broken image: broken.png"),
        (["input=broken.png", "explain=raw"], "none of the images can be read"),
        (["explain=atribution"], "explain=attribution"),
        (["imput=x"], "input=x"),
        (["input=a.png", "top=0"], "top"),
        (["input=a.png", "top=many"], "top has the wrong type"),
        (["input=a.png", "classes=names.txt"], "knows its classes"),
        (["input=a.png", "data.limit=3"], "given by the weights"),
    ],
)
def test_mistakes(run, command, tmp_path, arguments, said):
    picture().save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    code, printed, message = command(f"ckpt={run}", *arguments)
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message
    assert not list(run.glob("predictions*"))


def test_models_without_hidden_attention_name_classes_too(trained, tmp_path):
    from polymamba.domains.vision.predict import predict

    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    run = Trained(plain, None, trained.data, trained.describe, "cpu", tmp_path)
    picture().save(tmp_path / "a.png")
    answer = predict(run, str(tmp_path / "a.png"))
    assert [path.exists() for path in answer.files] == [True, True]
    with pytest.raises(UserError, match="no hidden attention"):
        predict(run, str(tmp_path / "a.png"), explain="raw")
