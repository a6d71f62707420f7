"""Pan-sharpening: loss and measures against their formulas, a run of its own choices, files that are sharpened."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from polymamba.domains.vision.sharpening import Sharpening
from polymamba.engine.command_line.compose import compose

QUICK = ("data=drawn_bands", "data.train=4", "data.val=2", "data.test=3", "data.side=[20,32]", "data.image_size=[16,24]",
         "data.batch_size=2")  # fmt: skip
HERE = ("trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu", "run_dir=run")


class Off(torch.nn.Module):
    """Says the truth and a little more."""

    def __init__(self, truth, more):
        super().__init__()
        self.truth, self.more = truth, more

    def forward(self, ms, pan):
        return self.truth + self.more


def batch(seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    truth = 0.1 + 0.8 * torch.rand(2, 3, 16, 24, generator=random)
    return F.avg_pool2d(truth, 4), truth.mean(1, keepdim=True), truth


def task(truth, more=0.05, **options):
    return Sharpening(Off(truth, more), {"ratio": 4, "shown": [2, 1, 0]}, **options)


def test_loss_and_measures():
    """Each written out for every image, then averaged over images."""
    ms, pan, truth = batch()
    loss, metrics = task(truth).step((ms, pan, truth), "val")
    assert float(loss) == pytest.approx(0.05, rel=1e-4)
    large = F.interpolate(ms, (16, 24), mode="bicubic", align_corners=False).clamp(0, 1)
    for said, end in ((truth + 0.05, ""), (large, "_bicubic")):
        error = (said - truth).square().mean((2, 3))
        psnr = -10 * error.mean(1).log10()
        angle = torch.rad2deg(torch.arccos(F.cosine_similarity(said, truth, dim=1).clamp(-1, 1)))
        ergas = 100 / 4 * (error / truth.mean((2, 3)).square()).mean(1).sqrt()
        assert float(metrics[f"psnr{end}"]) == pytest.approx(float(psnr.mean()), rel=1e-4)
        assert float(metrics[f"sam{end}"]) == pytest.approx(float(angle.mean()), rel=1e-3)
        assert float(metrics[f"ergas{end}"]) == pytest.approx(float(ergas.mean()), rel=1e-4)
    assert float(metrics["ssim"]) > 0.95 > float(metrics["ssim_bicubic"])
    assert float(task(truth, 0.0).step((ms, pan, truth), "val")[1]["ssim"]) == pytest.approx(1, abs=1e-5)


def test_black_pixels_have_no_angle():
    truth = batch()[2]
    truth[:, :, :4] = 0
    found = task(truth, 0.0).measured(truth.clone(), truth)
    assert float(found["sam"]) == pytest.approx(0, abs=0.05)


def test_the_worst_are_drawn_first():
    found = task(batch()[2], worst=3)
    found.on_test_start()
    for more in (0.01, 0.09, 0.03):
        found.model.more = more
        found.step(batch(), "test")
    assert [psnr for psnr, _ in found._drawn] == sorted(psnr for psnr, _ in found._drawn)
    assert found._drawn[0][0] == pytest.approx(-20 * np.log10(0.09), abs=0.5)
    assert set(found.pictures("test")) == {"worst_predictions"}
    assert set(found.pictures("train", batch())) == {"first_batch"}
    assert found.pictures("val") == {}
    assert task(batch()[2], worst=0).pictures("test") == {}


@pytest.mark.parametrize(
    ("typed", "model", "scan"),
    [
        ("data=drawn_bands", "panmamba", "raster"),
        ("data=bands_folder", "panmamba", "raster"),
        ("model=panmamba", "panmamba", "raster"),
        ("model=fusionmamba", "fusionmamba", "cross"),
    ],
)
def test_task_model_and_scan_are_chosen_by_the_data_or_the_model(typed, model, scan):
    config = compose(["domain=vision", typed])
    assert (config.task["name"], config.model["name"], config.scan["name"]) == ("sharpening", model, scan)
    assert config.data["name"] == ("bands_folder" if "bands_folder" in typed else "drawn_bands")


def test_a_run_sharpens_files(command, tmp_path):
    code, said, problems = command(*QUICK, *HERE, job="train")
    assert code == 0, problems
    assert "psnr_bicubic" in said
    assert "ms=ms.npy" in said
    for name in ("first_batch.png", "worst_predictions.png", "scan.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (5, 7, 4), np.uint8)
    Image.fromarray(coarse, "RGBA").save(tmp_path / "ms.tif")
    np.save(tmp_path / "pan.npy", random.uniform(0, 1, (1, 20, 28)).astype(np.float32))
    code, said, problems = command("ckpt=run", "input=pan.npy", "ms=ms.tif")
    assert code == 0, problems
    found = np.load(tmp_path / "run" / "sharpened" / "pan.npy")
    assert (found.shape, found.dtype) == ((4, 20, 28), np.uint8)
    assert (tmp_path / "run" / "sharpened" / "pan.png").stat().st_size > 0
    # two steps from the start the answer is still much like the bands that it was given
    assert np.corrcoef(found[:, ::4, ::4].flatten(), coarse.transpose(2, 0, 1).flatten())[0, 1] > 0.5
    for folder, shape in (("pan", (1, 20, 24)), ("ms", (4, 5, 6))):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        for name in ("a", "b"):
            np.save(tmp_path / "pairs" / folder / f"{name}.npy", random.uniform(0, 1, shape))
    code, said, problems = command("ckpt=run", "input=pairs", "output=out", "pictures=0")
    assert code == 0, problems
    assert sorted(path.name for path in (tmp_path / "out" / "sharpened").iterdir()) == ["a.npy", "b.npy"]


def test_what_cannot_be_sharpened_is_named(command, tmp_path):
    code, _, problems = command(*QUICK, *HERE, "trainer.pictures=false", job="train")
    assert code == 0, problems
    np.save(tmp_path / "pan.npy", np.zeros((1, 20, 28)))
    np.save(tmp_path / "ms.npy", np.zeros((4, 5, 6)))
    np.save(tmp_path / "bright.npy", np.full((4, 5, 7), 300, np.uint16))
    (tmp_path / "pairs" / "pan").mkdir(parents=True)
    (tmp_path / "pairs" / "ms").mkdir()
    np.save(tmp_path / "pairs" / "pan" / "a.npy", np.zeros((1, 8, 8)))
    for typed, message in (
        (("input=pan.npy",), "which two images"),
        (("input=pan.npy", "ms=ms.npy"), "do not cover the same place"),
        (("input=pan.npy", "ms=pan.npy"), "other bands than the model takes"),
        (("input=pan.npy", "ms=gone.npy"), "no such file"),
        (("input=pan.npy", "ms=bright.npy"), "beyond black and white"),
        (("input=pairs",), "has no other half"),
        (("explain=attribution",), "are explained"),
    ):
        code, _, problems = command("ckpt=run", *typed)
        assert code == 2, typed
        assert message in problems
    assert not (tmp_path / "run" / "sharpened").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("model=panmamba", "data=digits"), "model 'panmamba' is not for these data: they say no 'ratio'"),
        (("model=vim", "data=drawn_bands"), "model 'vim' is not for these data: they say no 'num_classes'"),
        (("model=vim", "task=sharpening", "data=digits"), "bands are sharpened by a second image"),
    ],
)
def test_what_does_not_go_together_is_said(command, typed, message):
    code, _, problems = command(*typed, "run_dir=nothing", job="train")
    assert code == 2
    assert message in problems
    assert not Path("nothing").exists()
