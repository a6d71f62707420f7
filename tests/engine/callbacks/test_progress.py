"""What a person sees, on a terminal and in a pipe."""

import io
import re

import pytest
from lightning.pytorch import Callback

from polymamba.core.errors import UserError
from polymamba.engine.callbacks import Meter, Progress
from polymamba.engine.callbacks.progress import (
    BarDisplay,
    epoch_text,
    left_text,
    metrics_text,
    rate_text,
    resolve_style,
    stage_metrics,
    step_text,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Passing(Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_before_backward(self, trainer, pl_module, loss):
        self.clock.now += 2.0

    def on_validation_batch_end(self, *arguments):
        self.clock.now += 1.5


def train(make_task, make_loader, make_trainer, clock, style, stream, **settings):
    meter = Meter(clock=clock)
    progress = Progress(meter, style, stream=stream, clock=clock)
    trainer = make_trainer([meter, progress, Passing(clock)], **settings)
    trainer.fit(make_task(), make_loader(40), make_loader(16, shuffle=False))
    return trainer


def test_lines(make_task, make_loader, make_trainer, clock):
    stream = io.StringIO()
    trainer = train(make_task, make_loader, make_trainer, clock, "auto", stream, max_epochs=4)
    trainer.test(trainer.lightning_module, make_loader(16, shuffle=False), verbose=False)
    lines = stream.getvalue().splitlines()
    training = [line for line in lines if "lr " in line]
    assert [int(re.match(r"step +(\d+)/20 ", line)[1]) for line in training] == [1, 6, 11, 16, 20]
    number = r"\d+\.\d+"
    pattern = rf"step  6/20  epoch 2/4  loss {number}  accuracy {number}%  lr {number}e-\d+  4\.00 samples/s  "
    assert re.match(pattern + rf"16 tokens/s  {number} GB  0:00:35 left$", training[1]), training[1]
    assert "left" not in training[0]
    assert "left" not in training[-1]
    validations = [line for line in lines if "validation" in line]
    assert [int(re.match(r"step +(\d+)/20 ", line)[1]) for line in validations] == [5, 10, 15, 20]
    assert all("(3.0 s)" in line for line in validations)
    assert validations[0].endswith("best so far")
    assert lines[-1].startswith("test  loss ")
    assert max(map(len, lines)) < 130


def test_best_so_far_is_said_of_improvements_and_equals(make_task, make_loader, make_trainer, clock):
    values = iter([0.3, 0.2, 0.5, 0.5])

    class Set(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.monitor = ("val/score", "max")
            pl_module.log("val/score", next(values))

    stream = io.StringIO()
    meter = Meter(clock=clock)
    trainer = make_trainer([Set(), meter, Progress(meter, "lines", stream=stream, clock=clock)], max_epochs=4)
    trainer.fit(make_task(), make_loader(40), make_loader(16, shuffle=False))
    said = [line.endswith("best so far") for line in stream.getvalue().splitlines() if "validation" in line]
    assert said == [True, False, True, True]


def test_bar(make_task, make_loader, make_trainer, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    trainer = train(make_task, make_loader, make_trainer, clock, "bar", stream, max_epochs=2)
    trainer.test(trainer.lightning_module, make_loader(16, shuffle=False), verbose=False)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    for part in (
        "step 10/10",
        "epoch 2/2",
        "4.00 samples/s",
        "16 tokens/s",
        "validating 2/2",
        "testing 2/2",
        "0:00:16 left",
    ):
        assert part in text, part
    assert len(re.findall(r"step +\d+/10  validation  loss", text)) == 2
    assert re.search(r"test  loss \d", text)
    trainer.validate(trainer.lightning_module, make_loader(16, shuffle=False), verbose=False)
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 3, (
        "the cursor is left hidden"
    )


def test_a_failed_run_gives_the_cursor_back(make_task, make_loader, make_trainer, clock):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            raise RuntimeError("broken")

    stream = Terminal()
    meter = Meter(clock=clock)
    trainer = make_trainer([meter, Progress(meter, "bar", stream=stream, clock=clock), Fail()])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(make_task(), make_loader(40))
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_none_says_nothing(make_task, make_loader, make_trainer, clock, capsys):
    stream = io.StringIO()
    train(make_task, make_loader, make_trainer, clock, "none", stream)
    assert stream.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_style(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert resolve_style("auto", Terminal()) == "bar"
    assert resolve_style("auto", io.StringIO()) == "lines"
    assert resolve_style("bar", io.StringIO()) == "bar"
    monkeypatch.setenv("TERM", "dumb")
    assert resolve_style("auto", Terminal()) == "lines"
    with pytest.raises(UserError, match="bars"):
        Progress(Meter(), "bars")


def test_a_narrow_terminal_keeps_step_and_time_left():
    stream = Terminal()
    display = BarDisplay(stream, width=60)
    display.start(100, 0)
    display.training(7, 100, "loss 1.0", 75.0)
    display.stop()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    assert any("step   7/100" in line and "0:01:15 left" in line and len(line) <= 60 for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (left_text(None), ""),
        (left_text(0), "0:00:00 left"),
        (left_text(59.6), "0:01:00 left"),
        (left_text(2 * 86400 + 61), "2 days, 0:01:01 left"),
        (rate_text(None, "samples/s"), ""),
        (rate_text(3.14159, "samples/s"), "3.14 samples/s"),
        (rate_text(2310.4, "samples/s"), "2,310 samples/s"),
        (rate_text(151_200, "tokens/s"), "151,200 tokens/s"),
        (rate_text(2_340_000, "tokens/s"), "2,340,000 tokens/s"),
        (step_text(7, 1500), "step    7/1500"),
        (step_text(7, None), "step 7"),
        (epoch_text(2, 38), "epoch 3/38"),
        (epoch_text(2, -1), "epoch 3"),
        (metrics_text({"loss": 0.41234, "accuracy": 0.871}), "loss 0.4123  accuracy 87.10%"),
    ],
)
def test_texts(text, expected):
    assert text == expected


def test_stage_metrics():
    found = stage_metrics({"val/zeta": 1, "val/loss": 2, "train/loss": 3, "val/loss_epoch": 4}, "val")
    assert list(found.items()) == [("loss", 2.0), ("zeta", 1.0)]


FIGURES = "epoch 3/38  loss 2.1234  accuracy 21.00%  bits_per_byte 3.1234  lr 1.00e-03  2,310 samples/s  151,200 tokens/s  1.2 GB"


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_the_bar_takes_two_lines_on_any_terminal(width):
    stream = Terminal()
    display = BarDisplay(stream, width=width)
    display.start(15000, 0)
    display.training(1200, 15000, FIGURES, 75432.0)
    display.evaluating("validating", 120, 1250)
    display.stop()
    frames = re.split(r"\x1b\[[0-9]*A|\x1b\[2K", stream.getvalue())
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n").splitlines()
    assert all(len(line) <= width for line in lines), lines
    assert len(frames) > 2
    said = [line for line in lines if line.startswith("epoch")]
    assert said
    if width >= 40:
        assert all("loss 2.1234" in line for line in said)
        assert all(FIGURES.startswith(line.strip()) and not line.endswith("…") for line in said)
    # no figure begins a line of its own: nothing was wrapped
    assert not [line for line in lines if line.strip() and not line.startswith(("epoch", "step", "s"))]
