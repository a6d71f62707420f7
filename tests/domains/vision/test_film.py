"""Videos through the task of images: training, pictures, answers."""

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.scans import Grid
from polymamba.domains.vision.film import moments, strip, strip_of_tokens
from polymamba.domains.vision.models.videomamba import build

QUICK = ("data=moving_shapes", "data.train=8", "data.val=8", "data.test=8", "data.batch_size=4", "data.frames=4",
         "data.image_size=16", "model.patch_size=8", "model.d_state=4")  # fmt: skip
HERE = ("trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu", "run_dir=run")


def test_strips():
    assert moments(8) == [0, 2, 5, 7]
    assert moments(2) == [0, 1]
    videos = torch.arange(2 * 3 * 2 * 4 * 5).view(2, 3, 2, 4, 5)
    found = strip(videos)
    assert found.shape == (2, 3, 4, 10)
    assert torch.equal(found[..., 5:], videos[:, :, 1])
    weights, grid = strip_of_tokens(torch.arange(13.0)[None], Grid((2, 2, 3), (0,)))
    assert grid.sizes == (2, 6)
    assert weights[0].tolist() == [1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12]


@pytest.mark.parametrize(("side", "patch"), [(32, 8), (224, 16), (16, 4), (7, 1)])
def test_patches_of_frames(side, patch):
    describe = {"image_size": [side, side], "channels": 3, "num_classes": 2, "model_size": "micro", "frames": 4}
    model = build(describe, scan="temporal_first", tube=2)
    assert model.patch_embed.patch_size == patch
    assert model.grid.sizes[0] == 2


def test_a_run_draws_films_and_answers(command, tmp_path):
    more = ("scan=temporal_first", "model.tube=2", "task.mixup=0.5", "task.cutmix=0.5")
    code, _, problems = command(*QUICK, *HERE, *more, job="train")
    assert code == 0, problems
    for name in ("first_batch.png", "worst_predictions.png", "scan.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    (tmp_path / "film").mkdir()
    for number in range(6):
        pixels = np.full((20, 30, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "film" / f"{number}.png")
    code, said, problems = command("ckpt=run", "input=film")
    assert code == 0, problems
    assert "film" in said
    assert len(list((tmp_path / "run" / "predictions").glob("*.png"))) == 1
    assert command("ckpt=run", "explain=attribution")[0] == 0
