"""Segmentation of images: loss, IoU, pictures, masks of photos of any size."""

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.domains.vision.label_pictures import colours, overlaid, squared
from polymamba.domains.vision.segmentation import Segmentation, iou_of

QUICK = ("data=drawn_shapes", "data.train=4", "data.val=2", "data.test=3", "data.side=[40,52]", "data.image_size=[32,24]",
         "data.batch_size=2", "model.options={dims: [8, 8], depths: [1, 1]}", "model.channels=8")  # fmt: skip
HERE = ("trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu", "run_dir=run")


class Known(torch.nn.Module):
    """Says the class that a pixel's brightness is."""

    def forward(self, x):
        return torch.nn.functional.one_hot(x[:, 0].round().long(), 3).movedim(-1, 1).float() * 20


def task(**options):
    return Segmentation(
        Known(), {"classes": ["a", "b", "c"], "image_size": [4, 4], "mean": [0.0], "std": [1.0]}, **options
    )


def test_what_is_not_known_is_neither_learnt_nor_counted():
    truth = torch.tensor([[[0, 1, 2, 255], [255, 1, 1, 0]]])
    images = torch.tensor([[[[0, 1, 2, 2], [2, 1, 0, 0]]]]).float()
    each = task()
    loss, metrics = each.step((images, truth), "val")
    assert float(loss) == pytest.approx(20 / 6, rel=1e-3)  # one of six known pixels is wrong
    assert float(metrics["miou"].compute()) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert float(metrics["pixel_accuracy"].compute()) == pytest.approx(5 / 6)
    nothing = torch.full_like(truth, 255)
    assert float(each.step((images, nothing), "train")[0]) == 0


def test_dice_counts_beside_cross_entropy():
    truth, images = torch.tensor([[[0, 1], [1, 2]]]), torch.tensor([[[[0, 1], [1, 2]]]]).float()
    assert float(task(dice=1.0, cross_entropy=0.0).step((images, truth), "train")[0]) == pytest.approx(0, abs=1e-4)
    assert float(task(dice=1.0, cross_entropy=0.0).step((images, truth.flip(1)), "train")[0]) > 0.3


def test_large_images_are_answered_by_windows():
    images = torch.randint(0, 3, (1, 1, 11, 7)).float()
    assert torch.equal(task().answer(images).argmax(1), images[:, 0].long())


def test_iou_of_one_image():
    truth = torch.tensor([[0, 0, 1, 255]])
    assert iou_of(torch.tensor([[0, 1, 1, 2]]), truth, 3) == pytest.approx(0.5)
    assert iou_of(truth.clamp(max=2), truth, 3) == 1
    assert iou_of(truth.clamp(max=2), torch.full_like(truth, 255), 3) == 1


def test_colours_are_those_of_pascal_voc():
    assert (255 * colours(8)).round().int().tolist()[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len(colours(256).unique(dim=0)) == 256


def test_overlays_of_grey_images_and_unknown_pixels():
    image, classes = torch.full((1, 2, 2), 0.5), torch.tensor([[0, 1], [255, 1]])
    found = overlaid(image, classes)
    assert found.shape == (3, 2, 2)
    assert found[:, 1, 0].tolist() == pytest.approx([0.15] * 3)
    assert squared(torch.zeros(3, 500, 20)).shape == (3, 160, 160)


def test_a_run_draws_and_writes_masks_of_photos_of_any_size(command, tmp_path):
    code, said, problems = command(*QUICK, *HERE, "task.dice=1", "task.mirror=true", job="train")
    assert code == 0, problems
    assert "miou" in said
    for name in ("first_batch.png", "worst_predictions.png", "classes.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    for name, size in (("small.png", (9, 13)), ("large.jpg", (70, 45))):
        Image.linear_gradient("L").resize(size).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no")
    code, said, problems = command("ckpt=run", "input=*.*g")
    assert code == 1
    assert "bad.png" in problems + said
    for name, size in (("small", (9, 13)), ("large", (70, 45))):
        with Image.open(tmp_path / "run" / "masks" / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", size)
            assert np.array(mask).max() < 6
            assert mask.getpalette()[3:6] == [128, 0, 0]
        assert (tmp_path / "run" / "masks" / f"{name}_overlay.png").stat().st_size > 0
    code, _, problems = command("ckpt=run", "input=run/masks/small.png")
    assert code == 2
    assert "replace the image" in problems
