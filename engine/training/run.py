"""The order of events of a run: `train` reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core import scans
from ...core.precision import pad_before_convolving
from ...core.stages import has_walks, walks_of
from ..checkpoints import folder as files
from ..checkpoints.initial_weights import read_initial
from ..command_line.config import Config
from .assembly import KEPT, Parts, build_parts
from .environment import describe_environment
from .failures import explained, first_pass, restoring
from .hardware import Hardware, choose_hardware
from .optimizer import build_optimizer
from .plan import Length, plan_length, resolve_backend, write_plan
from .run_folder import CHECKPOINTS, SCAN, is_first, locked, new_run_folder, run_of, start
from .stop import StopRequest, listening
from .trainer import check_logger, loaders, make_trainer, quiet


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        folder: the run folder.
        metrics: the test metrics of the best weights, by name.
        task: the trained task; its model holds the best weights.
        ended: what ended the run before all its steps were made; None: nothing.
    """

    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    task: Any = None
    ended: str | None = None


def train(
    config: Config, *, arguments: Sequence[str] = (), allow: Sequence[str] = (), resume: Path | None = None,
    callbacks: Sequence[Any] = (), say: Callable[[str], None] = print,
) -> Result:  # fmt: skip
    """Trains one run from its start, or from a checkpoint, and tests the best weights.

    Args:
        config: the whole configuration.
        arguments: the arguments as they were typed, kept in the run folder.
        allow: further packages that a `_target_` may come from.
        resume: a checkpoint folder to go on from; the run stays in its run folder.
        callbacks: more Lightning callbacks, after the usual ones and before checkpoints are written.
        say: where the plan and the result go.

    Raises:
        UserError: what was given cannot be run.
        NonFinite: a loss, a gradient or a weight was not finite; the checkpoint before that is kept.
        Failed: that, or the run folder can no longer be written.
        Stopped: a signal ended the run, after its checkpoint was written.
    """
    with listening() as stop, ExitStack() as until_the_end:
        check_logger(config)
        folder = new_run_folder(config) if resume is None else run_of(resume)
        if resume is not None:
            until_the_end.enter_context(locked(folder))
        until_the_end.enter_context(explained(folder, stop))

        hardware = choose_hardware(config.trainer)
        initial = None
        if resume is None and config.init is not None:
            initial = read_initial(config.init, str(config.task["_target_"]), allow)
        kept_by = folder if resume is not None else initial and initial.run
        parts = build_parts(config, allow, kept_by=kept_by)
        first_weights = None if initial is None else initial.put_into(parts.model)

        length = plan_length(config, parts.data)
        backend, reason = resolve_backend(config, hardware)
        scan_asked_for = any(each.startswith("scan=") for each in arguments)
        say(f"\nPolyMamba {'goes on with' if resume else 'starts'} a run")
        with first_pass(config, lambda: True):
            plan = write_plan(config, parts, length, hardware, (backend, reason), folder, scan_asked_for, first_weights)
        say(f"{plan}\n")

        with stop.deferred():
            if resume is None:
                facts = {"seed": config.seed, "threads": hardware.threads, "backend": backend, "backend_reason": reason}
                facts |= {**describe_environment(), "device": hardware.device, "precision": hardware.precision}
                until_the_end.enter_context(start(folder, config, arguments, facts))
                if is_first():
                    parts.data.keep(folder / KEPT)
            elif is_first():
                resume = files.settle(resume)
            metrics, ended = _fit_and_test(config, parts, length, hardware, folder, resume, callbacks, stop, say)
    return Result(folder, metrics, parts.task, ended)


def _fit_and_test(
    config: Config, parts: Parts, length: Length, hardware: Hardware, folder: Path, resume: Path | None,
    callbacks: Sequence[Any], stop: StopRequest, say: Callable[[str], None],
) -> tuple[dict[str, float], str | None]:  # fmt: skip
    # Here and not above: what is wrong with a folder or the data is said before Lightning loads.
    from ..callbacks import WeightAverage, default_callbacks
    from ..checkpoints.saver import CheckpointFolders, Saver

    if hardware.device == "cpu" and hardware.precision != "32":
        pad_before_convolving(parts.task)
    parts.task.optimizer_factory = lambda model: build_optimizer(model, config.optimizer, length.steps)
    io = CheckpointFolders()
    saver = Saver(folder / CHECKPOINTS, io, config, parts.task.monitor, stop, parts.description)
    usual, ended = default_callbacks(config, folder), None
    with quiet():
        trainer = make_trainer(config, hardware, folder, [saver.first, *usual, *callbacks, saver], io, length)
        with restoring(resume, saver), first_pass(config, lambda: saver.started and not saver.stepped):
            trainer.fit(parts.task, **loaders(config, parts), ckpt_path=resume, weights_only=True if resume else None)
        if saver.time_over:
            ended = f"trainer.time_limit={config.trainer.time_limit} ended the run at step {trainer.global_step} of {length.steps}"
            say(f"\n{ended}\n")
        if saver.validation_due:
            trainer.validate(parts.task, datamodule=parts.data, verbose=False)

        parts.task.model.load_state_dict(files.read_weights(files.find(folder, ("best", "last"))[0]))
        for callback in usual:
            if isinstance(callback, WeightAverage):
                callback.release()
        drawn = config.trainer.pictures and parts.scan is not None and has_walks(parts.model)
        if drawn and (walks := walks_of(parts.model, parts.scan)):
            scans.draw_stages(*zip(*walks, strict=True), file=folder / SCAN)
        [metrics] = trainer.test(parts.task, datamodule=parts.data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}, ended
