"""The callbacks of every run, together."""

from types import SimpleNamespace

import pytest

from polymamba.engine.callbacks import NonFinite, WeightAverage, default_callbacks


def config(**trainer):
    fixed = {"ema": None, "log_every": 2, "pictures": True, "progress": "lines"}
    return SimpleNamespace(seed=3, trainer=SimpleNamespace(**(fixed | trainer)))


@pytest.mark.parametrize(("precision", "accumulate"), [("32-true", 2), ("bf16-mixed", 1)])
def test_a_run_folder(make_task, make_loader, make_trainer, tmp_path, precision, accumulate, capsys):
    trainer = make_trainer(
        default_callbacks(config(ema=0.9), tmp_path),
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        num_sanity_val_steps=1,
    )
    task = make_task(noise=0.1)
    trainer.fit(task, make_loader(44), make_loader(16, shuffle=False))
    trainer.test(task, make_loader(16, shuffle=False), verbose=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"metrics.csv", "progress.png", "first_batch.png", "worst_predictions.png"} <= names
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step ")
    assert lines[-1].startswith("test  loss ")
    assert all(parameter.dtype.is_floating_point and parameter.itemsize == 4 for parameter in task.parameters())


def test_what_is_asked_for(tmp_path):
    kinds = [type(callback).__name__ for callback in default_callbacks(config(pictures=False), tmp_path)]
    assert kinds == ["Meter", "StepSeeds", "FiniteGuard", "MetricsCSV", "Progress"]
    assert any(isinstance(callback, WeightAverage) for callback in default_callbacks(config(ema=0.99), tmp_path))


def test_a_run_that_stops_on_nan_leaves_its_numbers(make_task, make_loader, make_trainer, tmp_path):
    task = make_task()
    step = task.step
    task.step = lambda batch, stage: (step(batch, stage)[0] * (float("nan") if task.global_step == 5 else 1), {})
    with pytest.raises(NonFinite) as stopped:
        make_trainer(default_callbacks(config(), tmp_path)).fit(task, make_loader(64))
    assert stopped.value.step == 5
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]
    assert (tmp_path / "first_batch.png").exists()
    assert (tmp_path / "progress.png").exists()
