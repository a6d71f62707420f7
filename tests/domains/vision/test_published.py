"""Published weights in their authors' layouts: read whole, for other images and classes, by init= and predict.py."""

import argparse
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from polymamba.core.errors import UserError
from polymamba.domains.vision.layouts import arguments_of
from polymamba.domains.vision.models import VMamba, mambavision
from polymamba.domains.vision.models.registration import crop_of
from polymamba.domains.vision.models.vim import Vim, build
from polymamba.domains.vision.predict import classify
from polymamba.domains.vision.published import is_published, load, read_weights

SMALL = {"img_size": 224, "patch_size": 56, "embed_dim": 16, "depth": 2, "backend": "reference"}
NAMES = {
    "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm_f.weight", "head.weight", "head.bias",
    *(f"layers.{layer}.{name}" for layer in (0, 1) for name in (
        "norm.weight", "mixer.in_proj.weight", "mixer.out_proj.weight",
        *(f"mixer.{name}{end}" for end in ("", "_b") for name in ("D",)), "mixer.A_log", "mixer.A_b_log",
        *(f"mixer.{name}{end}.{kind}" for end in ("", "_b") for name, kinds in (
            ("conv1d", ("weight", "bias")), ("x_proj", ("weight",)), ("dt_proj", ("weight", "bias"))) for kind in kinds),
    )),
}  # fmt: skip


def vim(**options):
    torch.manual_seed(0)
    model = Vim(**{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(model, path):
    """As DeiT's script saves: the weights under "model", beside the optimizer and the script's arguments."""
    content = {
        "model": model.state_dict(),
        "optimizer": {"state": {}},
        "epoch": 299,
        "args": argparse.Namespace(lr=5e-4),
    }
    torch.save(content, path)
    return path


def photo(size=(300, 260)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_model_is_built_from_the_weights_alone(tmp_path, suffix):
    model, path = vim(), tmp_path / f"vim{suffix}"
    assert set(model.state_dict()) == NAMES
    saved(model, path) if suffix == ".pth" else save_file(model.state_dict(), path)
    for where in (path, tmp_path):
        assert is_published(str(where))
        run = load(where)
        assert run.model.state_dict().keys() == model.state_dict().keys()
        images = torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            torch.testing.assert_close(run.model(images), model(images), rtol=1e-4, atol=1e-4)
    photos = run.data.photos()
    from timm.data import create_transform

    wanted = create_transform((3, 224, 224), crop_pct=0.875, interpolation="bicubic")(photo())
    torch.testing.assert_close(photos.prepare([photo()])[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"img_size": 224, "patch_size": 16},
        {"img_size": 224, "patch_size": 16, "stride": 8},
        {"img_size": 384, "patch_size": 16},
        {"img_size": 32, "patch_size": 4, "in_chans": 1, "num_classes": 10, "class_token": "double"},
        {"img_size": 8, "patch_size": 2, "class_token": "none", "d_state": 4, "expand": 1, "parameters": "decay"},
        {"img_size": 8, "patch_size": 2, "norm": "layer", "parameters": "shared", "num_classes": 0},
    ],
)
def test_what_shapes_tell(options):
    given = {"embed_dim": 16, "depth": 3, **options}
    model = Vim(**given, device="meta")
    kind, found = arguments_of(model.state_dict())
    assert kind is Vim
    again = Vim(**found, device="meta")
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}
    assert (again.img_size, again.patch_embed.stride) == (model.img_size, model.patch_embed.stride)


def test_published_sizes():
    for width, parameters in ((192, 7_148_008), (384, 25_796_584)):
        weights = Vim(embed_dim=width, device="meta").state_dict()
        assert sum(each.numel() for each in weights.values()) == parameters
        assert Vim(**arguments_of(weights)[1], device="meta").img_size == (224, 224)


def test_weights_for_other_images_and_classes(tmp_path):
    model = vim()
    path = saved(model, tmp_path / "vim.pth")
    other = Vim((112, 168), 28, in_chans=1, num_classes=3, embed_dim=16, depth=2, backend="reference")
    found = read_weights(path, other)
    assert found["pos_embed"].shape == (1, 4 * 6 + 1, 16)
    assert torch.equal(found["pos_embed"][:, 12], model.pos_embed[:, 8]), "the class token's row, in the middle of each"
    assert found["patch_embed.proj.weight"].shape == (16, 1, 28, 28)
    assert found["head.weight"].shape == (1000, 16)
    same = {name for name in found if torch.equal(found[name], model.state_dict()[name])}
    assert same == NAMES - {"pos_embed", "patch_embed.proj.weight"}
    flat = vim()
    with torch.no_grad():
        flat.pos_embed.fill_(0.25)
    found = read_weights(saved(flat, path), other)
    torch.testing.assert_close(found["pos_embed"], torch.full((1, 25, 16), 0.25))
    assert "cls_token" not in read_weights(path, Vim(224, 56, embed_dim=16, depth=2, class_token="none"))


def test_a_run_begins_with_them(tmp_path, command):
    model = vim(img_size=32, patch_size=4)
    saved(model, tmp_path / "vim_tiny.pth")
    typed = (
        "init=vim_tiny.pth", "run_dir=begun", "model.embed_dim=16", "model.depth=2", "model.patch_size=2",
        "model.class_token=middle", "model.backend=reference", "data.limit=20", "trainer.steps=1", "trainer.progress=none",
        "trainer.threads=1", "optimizer.lr=0", "optimizer.warmup=0", "trainer.pictures=false",
    )  # fmt: skip
    code, printed, message = command(*typed, job="train")
    assert (code, message) == (0, "")
    assert "vim_tiny.pth; new: head.weight, head.bias" in printed
    from polymamba.engine.checkpoints import folder as files

    trained = files.read_weights(files.find("begun")[0])
    describe = {"image_size": (8, 8), "channels": 1, "num_classes": 10}
    options = {"size": "micro", "embed_dim": 16, "depth": 2, "patch_size": 2, "class_token": "middle"}
    wanted = read_weights("vim_tiny.pth", build(describe, **options))
    assert {name for name in wanted if torch.equal(trained[name], wanted[name])} == NAMES - {"head.weight", "head.bias"}
    code, _, message = command(*typed[:2], "run_dir=other", *typed[3:], "model.embed_dim=8", job="train")
    assert code == 2
    assert "do not fit" in message


def test_predict(tmp_path, command):
    model = vim()
    saved(model, tmp_path / "vim_tiny.pth")
    photo().save(tmp_path / "photo.jpg")
    for given in (["domain=vision"], []):
        code, printed, message = command("ckpt=vim_tiny.pth", *given, "input=photo.jpg", "trainer.threads=1")
        assert (code, message) == (0, "")
    run = load(tmp_path / "vim_tiny.pth")
    [answer] = classify(run, [tmp_path / "photo.jpg"])
    assert answer.line in printed
    assert all(0 <= int(name) < 1000 for name in answer.names)
    assert (tmp_path / "predictions.csv").exists()
    assert (tmp_path / "predictions" / "0000_photo.png").exists()
    (tmp_path / "names.txt").write_text("".join(f"kind {number}\n" for number in range(1000)))
    code, printed, _ = command("ckpt=vim_tiny.pth", "input=photo.jpg", "classes=names.txt", "explain=raw")
    assert code == 0
    assert (tmp_path / "explained_raw.png").exists()
    code, printed, _ = command("ckpt=vim_tiny.pth", "input=photo.jpg", "classes=names.txt")
    assert f"kind {answer.names[0]} " in printed


def photos(root, split, classes, each=4):
    for label in range(classes):
        (root / split / f"{label:02}").mkdir(parents=True)
        for i in range(each):
            pixels = np.random.default_rng([label, i]).integers(0, 255, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / f"{label:02}" / f"{i}.png")


def test_evaluation_on_a_folder_in_one_command(tmp_path, command):
    """ImageNet's layout, its val alone: the share that the weights themselves get right, image by image."""
    model = vim(img_size=32, patch_size=8, num_classes=3)
    saved(model, tmp_path / "vim_tiny.pth")
    photos(tmp_path / "images", "val", 3)
    typed = ("ckpt=vim_tiny.pth", "data=image_folder", "data.root=images", "data.workers=0", "trainer.threads=1")
    code, printed, _ = command(*typed, "data.batch_size=5", job="evaluate")
    assert code == 0
    run, paths = load(tmp_path / "vim_tiny.pth"), sorted((tmp_path / "images" / "val").rglob("*.png"))
    answers = classify(run, paths, top=1)
    right = sum(answer.names[0] == str(int(path.parent.name)) for answer, path in zip(answers, paths, strict=True)) / 12
    kept = json.loads((tmp_path / "runs/vision/published/vim_tiny.pth/metrics.json").read_text())["image_folder"]
    assert kept["samples"] == 12
    assert kept["metrics"]["test/accuracy"] == pytest.approx(right)
    assert f"{right:.4f}" in printed
    assert "12 val, 12 test; 3×32×32" in printed
    assert command(*typed, "data.image_size=24", job="evaluate")[0] == 2, "position embeddings of another grid"


def test_what_evaluation_refuses(tmp_path, refused):
    saved(vim(img_size=32, patch_size=8, num_classes=4), tmp_path / "vim.pth")
    photos(tmp_path / "images", "val", 3, each=1)
    typed = ("ckpt=vim.pth", "data=image_folder", "data.root=images")
    assert "4 in vim.pth, 3 in the data" in refused(*typed, job="evaluate")
    assert "the model is given by the weights" in refused(*typed, "model=vmamba", job="evaluate")
    assert "the model is given by the weights" in refused(*typed, "scan=cross", job="evaluate")
    assert "no such model with published weights" in refused(*typed, "layout=resnet", job="evaluate")
    assert "leave --cfg out" in refused(*typed, "--cfg", job="evaluate")
    assert "eval.py" in refused("data=image_folder", "data.root=images")


def test_the_share_that_authors_test_on():
    assert crop_of(Vim, {}) == crop_of(VMamba, {"dims": (96, 192, 384, 768)}) == 0.875
    for size, crop in {
        "tiny": 1.0,
        "tiny2": 0.98,
        "small": 0.93,
        "base": 1.0,
        "large": 1.0,
        "large2": 1.0,
        "large3": 1.0,
    }.items():
        weights = mambavision.MambaVision(num_classes=2, compat="published", device="meta", **mambavision.SIZES[size])
        assert crop_of(*arguments_of(weights.state_dict())) == crop
        assert timm.get_pretrained_cfg(f"mambavision_{size}").crop_pct == crop


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ckpt=harm.pth", "input=a.png"], "more than plain values (none of it was run)"),
        (["ckpt=cut.pth", "input=a.png"], "cannot read the weights"),
        (["ckpt=other.pth", "input=a.png"], "not the weights of an image model"),
        (["ckpt=other.pth", "input=a.png", "layout=vim"], "no patch_embed.proj.weight"),
        (["ckpt=vim.pth", "input=a.png", "layout=vmamba"], "not the weights of a VMamba"),
        (["ckpt=vim.pth", "input=a.png", "layout=resnet"], "no such model with published weights"),
        (["ckpt=more.pth", "input=a.png"], "extra: (2,), needs nothing"),
        (["ckpt=vim.pth", "explain=raw"], "without test images"),
        (["ckpt=vim.pth", "input=a.png", "classes=few.txt"], "2 in few.txt"),
        (["ckpt=vim.pth", "input=a.png", "classes=none.txt"], "cannot read the class names"),
        (["ckpt=vim.pth", "input=a.png", "data.root=x"], "not known here"),
        (["ckpt=hustvl/Vim-huge", "domain=vision", "input=a.png"], "hustvl/Vim-tiny-midclstok"),
        (["ckpt=vim.pth", "domain=vison"], "domain=vison"),
    ],
)
def test_mistakes(tmp_path, command, arguments, said):
    model = vim()
    saved(model, tmp_path / "vim.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "vim.pth").read_bytes()[:999])
    torch.save({"model": Harmful()}, tmp_path / "harm.pth")
    torch.save({"model": {"fc.weight": torch.ones(2)}}, tmp_path / "other.pth")
    torch.save({"model": {**model.state_dict(), "extra": torch.ones(2)}}, tmp_path / "more.pth")
    (tmp_path / "few.txt").write_text("a\nb\n")
    photo().save(tmp_path / "a.png")
    code, printed, message = command(*arguments)
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "harmed").exists()


@pytest.mark.usefixtures("offline")
def test_without_a_network(command):
    code, _, message = command("ckpt=hustvl/Vim-tiny-midclstok", "domain=vision", "input=a.png")
    assert code == 2
    assert "copy vim_t_midclstok_76p1acc.pth here" in message


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_other_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="no published weights"):
        read_weights(saved(vim(), tmp_path / "vim.pth"), torch.nn.Linear(2, 2))
