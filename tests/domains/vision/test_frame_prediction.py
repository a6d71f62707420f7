"""Predicting frames: measures and guesses against numbers found by hand, what is refused, a run, its pictures and answers."""

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.domains.vision.film import draw_films
from polymamba.domains.vision.frame_prediction import FramePrediction, guesses, scores

QUICK = ("task=frame_prediction", "data.train=8", "data.val=4", "data.test=4", "data.batch_size=4", "data.frames=5",
         "data.image_size=[14,12]", "model.d_state=4")  # fmt: skip
HERE = ("trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu", "run_dir=run")
DESCRIBE = {"frames": 4, "image_size": [2, 3], "mean": [0.5], "std": [0.25], "name": "own"}


class Darker(torch.nn.Module):
    """Says that the next frame is the last one, darker by a tenth."""

    predicts_frames = True

    def forward(self, video, further=0):
        said = list((video - 0.1).unbind(2))
        for _ in range(further):
            said.append(said[-1] - 0.1)
        return torch.stack(said, 2), []


def film(*values):
    """A video whose frames are of one brightness each, (1, 1, frames, 2, 3), normalised as DESCRIBE says."""
    return ((torch.tensor(values) - 0.5) / 0.25).view(1, 1, -1, 1, 1).expand(-1, -1, -1, 2, 3)


def test_measures_by_hand():
    truth = torch.zeros(1, 2, 2, 1, 2)
    said = torch.tensor([[[[[0.1, 0.3]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 0.2]]]]])
    found = scores(said, truth)
    assert found.keys() == {"mse", "mae", "psnr"}  # frames are smaller than the window of SSIM
    torch.testing.assert_close(found["mse"], torch.tensor([[0.1 / 4, 0.04 / 4]]))
    torch.testing.assert_close(found["mae"], torch.tensor([[0.4 / 4, 0.2 / 4]]))
    torch.testing.assert_close(found["psnr"], torch.tensor([[16.0206, 20.0]]), rtol=1e-5, atol=1e-4)
    assert float(scores(truth, truth)["psnr"].max()) == pytest.approx(100)


def test_ssim_of_even_frames_by_hand():
    a, b = 0.2, 0.6
    said, truth = (torch.full((1, 3, 1, 12, 13), each, dtype=torch.float64) for each in (a, b))
    expected = (2 * a * b + 0.01**2) / (a**2 + b**2 + 0.01**2)
    assert float(scores(said, truth)["ssim"]) == pytest.approx(expected, abs=1e-5)
    assert float(scores(truth, truth)["ssim"]) == pytest.approx(1, abs=1e-5)


def test_guesses():
    seen = torch.tensor([0.1, 0.5, 0.7]).view(1, 1, 3, 1, 1)
    found = guesses(seen, 3)
    torch.testing.assert_close(found["repeat_"].flatten(), torch.tensor([0.7, 0.7, 0.7]))
    torch.testing.assert_close(found["linear_"].flatten(), torch.tensor([0.9, 1.0, 1.0]))
    assert guesses(seen[:, :, :1], 1).keys() == {"repeat_"}


def test_loss_of_all_frames_and_metrics_of_those_to_come():
    task, batch = FramePrediction(Darker(), DESCRIBE), (film(0.9, 0.7, 0.6, 0.2), torch.zeros(1))
    given, further = task.inputs(batch)
    torch.testing.assert_close(given[0, 0, :, 0, 0], torch.tensor([0.9, 0.7]))
    assert further == 1
    loss, metrics = task.step(batch, "train")  # says 0.8, 0.6 and, of what it said, 0.5
    assert float(loss) == pytest.approx((0.1**2 + 0 + 0.3**2) / 3)
    assert float(metrics["mse"]) == pytest.approx(0.3**2 / 2)
    loss, metrics = task.step(batch, "test")
    found = {name: float(each.compute()) for name, each in metrics.items()}
    assert float(loss) == pytest.approx(0.1 / 3)
    assert found["mse"] == pytest.approx(0.09 / 2)
    assert found["mae"] == pytest.approx(0.3 / 2)
    assert found["repeat_mse"] == pytest.approx((0.1**2 + 0.5**2) / 2)
    assert found["linear_mae"] == pytest.approx((0.1 + 0.1) / 2, abs=1e-6)
    assert found["repeat_psnr"] == pytest.approx((20 - 10 * np.log10(0.25)) / 2)


def test_metrics_are_means_over_all_videos_and_the_worst_come_first():
    task = FramePrediction(Darker(), DESCRIBE, past=3, worst=2)
    task.step((torch.cat([film(0.9, 0.8, 0.7, 0.6), film(0.9, 0.8, 0.7, 0.2)]), torch.zeros(2)), "test")
    _, metrics = task.step((film(0.9, 0.8, 0.7, 0.4), torch.zeros(1)), "test")
    assert float(metrics["mse"].compute()) == pytest.approx((0 + 0.16 + 0.04) / 3, abs=1e-6)
    assert [round(each[""], 3) for each in task._drawn] == [0.16, 0.04]
    assert task.pictures("test").keys() == {"worst_predictions"}
    assert task.pictures("val") == {}
    task.on_test_start()
    assert task.pictures("test") == {}


def test_one_given_frame_says_nothing_of_how_it_goes_on():
    task = FramePrediction(Darker(), DESCRIBE, past=1)
    _, metrics = task.step((film(0.9, 0.8, 0.7, 0.6), torch.zeros(1)), "val")
    assert metrics.keys() == {"mse", "mae", "psnr", "repeat_mse", "repeat_mae", "repeat_psnr"}


@pytest.mark.parametrize(
    ("model", "describe", "options", "words"),
    [
        (Darker(), {"frames": None}, {}, "frames are predicted of videos"),
        (torch.nn.Identity(), {}, {}, "do:      model=vmrnn"),
        (Darker(), {}, {"past": 4}, "allowed: 1 to 3"),
        (Darker(), {"frames": 1}, {}, "no frames are left"),
    ],
)
def test_what_does_not_fit_is_refused(model, describe, options, words):
    with pytest.raises(UserError, match=words):
        FramePrediction(model, {**DESCRIBE, **describe}, **options)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["data=digits"], "do:      data=moving_shapes"),
        (["task.past=0"], "at least 1"),
        (["model.cell=lstm"], "vmrnn, convlstm"),
    ],
)
def test_one_message_for_what_is_typed_wrongly(typed, words, refused):
    assert words in refused("task=frame_prediction", *typed)


def test_rows_of_films():
    grey = [[torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5)]]
    figure = draw_films(grey, ["truth", "answer"], ["one"], "all")
    [axes] = figure.axes
    assert axes.images[0].get_array().shape == (8, 15)
    assert [each.get_text() for each in axes.get_yticklabels()] == ["truth", "answer"]


def test_a_run_draws_goes_on_and_answers(command, tmp_path):
    code, said, problems = command(*QUICK, *HERE, job="train")
    assert code == 0, problems
    assert "test/repeat_ssim" in said
    for name in ("first_batch.png", "worst_predictions.png", "scan.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert command("resume=run", "trainer.steps=3", job="train")[0] == 0
    for folder, count in (("film", 6), ("other", 2)):
        (tmp_path / "films" / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(
                tmp_path / "films" / folder / f"{number}.png"
            )
    code, said, problems = command("ckpt=run", "input=films", "pictures=1")
    assert code == 0, problems
    assert "of repeating the last frame" in said
    written = tmp_path / "run" / "frames"
    assert sorted(each.name for each in written.glob("*.png")) == ["0000_film.png"]
    assert sorted(each.name for each in (written / "0001_other").iterdir()) == ["00.png", "01.png", "02.png"]
    with Image.open(written / "0000_film" / "00.png") as frame:
        assert (frame.size, frame.mode) == ((12, 14), "RGB")
    code, _, problems = command("ckpt=run", "explain=attribution")
    assert code == 2
    assert "are explained" in problems
