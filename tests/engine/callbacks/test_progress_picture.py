"""progress.png: what is in it and how often it is drawn."""

import pytest
from lightning.pytorch import Callback
from matplotlib.pyplot import imread

from polymamba.engine.callbacks import Meter, MetricsCSV, ProgressPicture
from polymamba.engine.callbacks.progress_picture import draw_progress
from polymamba.engine.callbacks.table import Table


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    for step in (10, 20, 30):
        training = {"train/loss": 3 / step, "train/accuracy": step / 40, "learning_rate": 0.1, "seconds_per_step": 0.5}
        table.add({"step": step, "epoch": 0, "stage": "train", "seconds": step, **training})
        found = {"val/loss": 4 / step, "val/accuracy": [0.2, 0.6, 0.5][step // 10 - 1]}
        table.add({"step": step, "epoch": 0, "stage": "val", "seconds": step, **found})
    table.add({"step": 30, "epoch": 0, "stage": "test", "seconds": 30, "test/loss": 0.2, "test/accuracy": 0.55})
    return table


def lines(axis):
    return {line.get_label(): line.get_xydata().tolist() for line in axis.lines}


def test_the_panels_hold_the_rows(table):
    loss, accuracy, rate, seconds = draw_progress(table, "val/accuracy", "max").axes
    assert lines(loss)["train"] == [[10, 0.3], [20, 0.15], [30, 0.1]]
    assert lines(loss)["best val 0.1333 at step 30"] == [[30, 0.133333]]
    assert lines(accuracy)["val"] == [[10, 0.2], [20, 0.6], [30, 0.5]]
    assert lines(accuracy)["best val 0.6 at step 20"] == [[20, 0.6]]
    assert lines(accuracy)["test 0.55"] == [[30, 0.55]]
    assert [next(iter(lines(axis).values()))[0] for axis in (rate, seconds)] == [[10, 0.1], [10, 0.5]]


def test_of_equal_values_the_newest_is_marked(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    for step, value in ((10, 0.5), (20, 0.6), (30, 0.6), (40, 0.5)):
        table.add({"step": step, "epoch": 0, "stage": "val", "seconds": step, "val/accuracy": value})
    accuracy = draw_progress(table, "val/accuracy", "max").axes[1]
    assert "best val 0.6 at step 30" in lines(accuracy)


def test_a_task_judged_by_its_loss(table):
    titles = [axis.get_title(loc="left") for axis in draw_progress(table, "val/loss", "min").axes]
    assert titles == ["loss", "norm of the gradient", "learning rate", "seconds per step"]


def test_nothing_measured_yet(tmp_path):
    figure = draw_progress(Table(tmp_path / "none.csv"), "val/accuracy", "max")
    figure.savefig(tmp_path / "empty.png")
    assert all(not axis.lines for axis in figure.axes)


def test_drawn_at_most_so_often_and_at_the_end(make_task, make_loader, make_trainer, tmp_path, clock, monkeypatch):
    drawn = []

    class Passing(Callback):
        def on_before_backward(self, *arguments):
            clock.now += 1.5

    def save(figure, path):
        drawn.append(clock.now - 100)
        clock.now += 0.4
        path.write_text("picture")

    monkeypatch.setattr("polymamba.engine.callbacks.progress_picture.save_figure", save)
    meter = Meter(clock=clock)
    writer = MetricsCSV(tmp_path / "metrics.csv", meter, every=1)
    picture = ProgressPicture(tmp_path / "progress.png", writer.table, meter, every_seconds=15, clock=clock)
    trainer = make_trainer([meter, writer, picture, Passing()], max_epochs=6)
    trainer.fit(make_task(), make_loader(40), make_loader(8, shuffle=False))
    # Validations every 7.5 s; after a drawing of 0.4 s at least 50 times as long passes.
    assert drawn == pytest.approx([15.0, 37.9, 45.8])
    assert meter.elapsed() == pytest.approx(45.0)


def test_it_is_a_picture(make_task, make_loader, make_trainer, tmp_path):
    meter = Meter()
    writer = MetricsCSV(tmp_path / "metrics.csv", meter, every=1)
    picture = ProgressPicture(tmp_path / "progress.png", writer.table, meter)
    make_trainer([meter, writer, picture]).fit(make_task(), make_loader(40), make_loader(8, shuffle=False))
    height, width, _ = imread(tmp_path / "progress.png").shape
    assert (width, height) == (1100, 704)


@pytest.mark.parametrize("step", [1, 8, 1000])
def test_the_ticks_of_a_single_step_are_steps(tmp_path, step):
    table = Table(tmp_path / "metrics.csv")
    table.add({"step": step, "epoch": 0, "stage": "train", "seconds": 1.0, "train/loss": 2.0, "learning_rate": 0.1})
    figure = draw_progress(table, "val/loss", "min")
    figure.canvas.draw()
    for axis in figure.axes:
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert all(float(tick).is_integer() for tick in ticks)
        if axis.lines:
            assert step in ticks
