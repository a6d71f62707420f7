"""train.py, eval.py and predict.py: reads what was typed, runs it, and turns what went wrong into one message and an exit code.

Exit codes: 0 done, 1 training broke down (numbers that are not finite, a disk that is full), 2 a mistake in what was typed,
130 Ctrl-C, 143 SIGTERM, 141 what read the output went away (training goes on without it).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

from ...core.errors import UserError, closest
from ..training.stop import Failed, Stopped, listening
from .options import SCRIPTS, Options, joined, read_options
from .startup import import_torchmetrics, quick_start
from .terminal import to_nowhere, write_whatever_the_terminal_takes

MOST_RUNS = 8  # that a message names


def main(arguments: Sequence[str] | None = None, job: str = "train") -> int:
    """Runs a job ("train", "evaluate" or "predict") with the arguments typed and returns the exit code."""
    # Where bytecode may not be kept, every start compiles some 3,000 modules again, for longer than it then trains digits.
    sys.dont_write_bytecode = False
    if arguments is None:
        arguments = sys.argv[1:]
        write_whatever_the_terminal_takes(job)
    arguments = list(arguments)
    try:
        with listening() as stop, stop.unmasked():
            code = _run(arguments, job)
            if code == 0:
                # A signal that came where nothing could be raised.
                stop.check()
            return code
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return stopped.exit_code
    except UserError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 2
    except BrokenPipeError:
        to_nowhere()
        return 141
    except Failed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _run(arguments: list[str], job: str) -> int:
    if any(word.partition("=")[0] == "--list" for word in arguments):
        from .listing import show_list

        options = read_options(arguments)
        return show_list(options.arguments, options)
    _check_words(arguments, job)
    options = read_options(arguments)
    if options.help:
        with quick_start():
            from .help import help_text

            print(help_text(options, job))
        return 0
    _check_options(options, job)
    return {"train": _train, "evaluate": _evaluate, "predict": _predict}[job](options)


def _check_options(options: Options, job: str) -> None:
    """Raises UserError for -m and --cfg where a job has no use for them."""
    resumed = any(each.startswith("resume=") for each in options.arguments)
    if options.sweep and (job != "train" or resumed):
        raise UserError(
            "one run is named, several cannot be made of it", given="-m", allowed="python train.py -m key=value,value",
            do="leave -m out",
        )  # fmt: skip
    if options.show_config and job == "predict":
        raise UserError(
            "what predict.py does is in no configuration", given="--cfg", allowed="train.py --cfg, eval.py --cfg",
            do="leave --cfg out",
        )  # fmt: skip


def _check_words(words: Sequence[str], job: str) -> None:
    """Raises UserError for arguments that were torn by a space, or that are not text."""
    for number, word in enumerate(words):
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = os.fsencode(word).decode("ascii", "backslashreplace")
            raise UserError("this argument is not UTF-8", given=shown, allowed="text", do="rename the file or folder")
        plain = "=" not in word and not word.startswith(("-", "~")) and word != "help"
        value_of_option = number > 0 and words[number - 1] in ("--config-dir", "--allow", "--cfg", "-c")
        if (plain or word.startswith("=")) and not value_of_option:
            if job == "predict" and not word.startswith("="):
                continue  # what the domain takes without a key
            before = number > 0 and "=" in words[number - 1] and not words[number - 1].startswith("-")
            after = number + 1 < len(words) and words[number + 1].startswith("=")
            whole = before or after or word.startswith("=")
            raise UserError(
                "not of the form key=value", given=word, allowed="key=value; a value with a space in quotes",
                do=joined(words, SCRIPTS[job]) if whole else f"{_option_named(word) or word + '=<value>'}",
            )  # fmt: skip


def _option_named(word: str) -> str | None:
    """`scan=cross` for "cross"."""
    from .groups import Groups

    groups = Groups()
    usual = groups.domain_of(None)
    domains = sorted(groups.domains, key=lambda domain: domain != usual)  # what every domain has needs none
    found = ((domain, group) for domain in domains for group, files in groups.files(domain).items() if word in files)
    domain, group = next(found, ("", ""))
    own = domain == usual or group in ("domain", "experiments")
    return (f"{group}={word}" if own else f"domain={domain} {group}={word}") if group else None


def _train(options: Options) -> int:
    resume, typed = _take(options.arguments, "resume")
    if resume is not None:
        return _resume(options, resume, typed)
    if options.sweep:
        from .comparison import asked_for, compare
        from .sweep import sweep

        table = asked_for(options)
        return sweep(options) if table is None else compare(options, *table)
    with quick_start():
        from .compose import compose

        config = compose(typed, options.groups(), options.allow)
    return show(config, options) if options.show_config else run(config, options, typed)


def show(config: Any, options: Options) -> int:
    """Prints a whole configuration with the comments of the files that it comes from."""
    with quick_start():
        from ..training.run_folder import config_yaml
        from .comments import commented, explanations

        print(commented(config_yaml(config), explanations(config.plain(), options.groups())), end="")
    return 0


def _resume(options: Options, where: str, typed: list[str]) -> int:
    from ..checkpoints.folder import RESUMABLE
    from ..checkpoints.stored_config import changed_environment, stored_config
    from ..training.run_folder import run_of
    from .change_stored import WHEN_RESUMING, change_stored
    from .compose import check

    checkpoint, remark = _checkpoint("resume", where, ("last",))
    stored, notes = stored_config(checkpoint, RESUMABLE)
    why = "a run that goes on keeps what its results depend on"
    config = check(change_stored(stored, typed, options.groups(), WHEN_RESUMING, why, options.allow), options.allow)
    if options.show_config:
        return show(config, options)
    _note([*([remark] if remark else []), *notes, *changed_environment(run_of(checkpoint))])
    _check_more_to_do(config, checkpoint)
    return run(config, options, typed, checkpoint)


def _note(lines: Sequence[str]) -> None:
    if lines:
        print("\n" + "\n".join(lines), file=sys.stderr)


def _check_more_to_do(config: Any, checkpoint: Path) -> None:
    """Raises UserError where a run is to end before the place where it already is."""
    from ..checkpoints.folder import verify

    done, settings = verify(checkpoint), config.trainer
    for key, wanted, reached in (
        ("epochs", settings.epochs, done.get("epoch")),
        ("steps", settings.steps, done["step"]),
    ):
        if wanted is not None and reached is not None and wanted < reached:
            raise UserError(
                f"this run has already trained for {reached:,} {key}", given=f"trainer.{key}={wanted}",
                allowed=f"{reached:,} or more", do=f"trainer.{key}={2 * reached}",
            )  # fmt: skip


def run(config, options: Options, typed: Sequence[str], resume: Path | None = None) -> int:
    """Trains one composed run and prints its result and the next commands; returns the exit code."""
    import_torchmetrics()  # before anything that imports Lightning
    from ..training.run import train
    from ..training.run_folder import run_of
    from ..training.summary import after_stop, after_training

    try:
        result = train(config, arguments=typed, allow=options.allow, resume=resume)
    except Stopped as stopped:
        again = typed if resume is None else [f"resume={run_of(resume)}", *typed]
        print(after_stop(stopped, options, again), file=sys.stderr)
        return stopped.exit_code
    print(after_training(result, config, options))
    return 0


def _evaluate(options: Options) -> int:
    groups, allow = options.groups(), options.allow
    where, typed, found = _published(options, groups)
    if found is not None:
        if options.show_config:
            raise UserError(
                "published weights come without a configuration", given=f"ckpt={where} --cfg",
                allowed="--cfg with the folder of a run", do="leave --cfg out",
            )  # fmt: skip
        import_torchmetrics()
        from ..evaluate import evaluate_published

        evaluate_published(where, *found, typed, groups, allow)
        return 0
    from ..checkpoints.stored_config import stored_config
    from .change_stored import change_stored
    from .compose import check

    checkpoint, typed = _weights(options, "evaluate")
    why = "the model and how it was trained are given by the weights"
    stored, notes = stored_config(checkpoint)
    config = check(change_stored(stored, typed, groups, ("data", "trainer", "task"), why, allow), allow)
    _note(notes)
    if options.show_config:
        return show(config, options)
    import_torchmetrics()
    from ..evaluate import evaluate

    evaluate(config, checkpoint, allow=allow)
    return 0


def _predict(options: Options) -> int:
    groups, allow = options.groups(), options.allow
    where, typed, found = _published(options, groups)
    if found is not None:
        import_torchmetrics()
        from ..predict import predict_published, show

        return show(predict_published(where, *found, typed, groups, allow))
    from ..checkpoints.stored_config import stored_config
    from ..predict import predict_run, show

    checkpoints, typed = [], []
    for each in _several(where):
        checkpoint, typed = _weights(options, "predict", each)
        stored, notes = stored_config(checkpoint)
        _note(notes)
        checkpoints.append((checkpoint, stored))
    import_torchmetrics()
    return show(predict_run(checkpoints, [each for each in typed if not each.startswith("domain=")], groups, allow))


def _published(options: Options, groups: Any) -> tuple[str | None, list[str], Any]:
    """What ckpt= names, the other arguments but domain=, and where these are published weights what find_published says."""
    from ..conventions import find_published

    where, typed = _take(options.arguments, "ckpt")
    domain, typed = _take(typed, "domain")
    return where, typed, None if where is None else find_published(where, domain, groups, options.allow)


def _several(where: str | None) -> list[str | None]:
    """The runs that `ckpt=` names: one, several with commas between them, or those that patterns fit."""
    if where is None or _exists(where):
        return [where]
    found: list[str | None] = []
    for each in where.removeprefix("[").removesuffix("]").split(","):
        runs = [path for path in sorted(glob(each.strip())) if (Path(path) / "checkpoints").is_dir()]
        found += runs or [each.strip()]
    return found


def _weights(options: Options, job: str, where: str | None = None) -> tuple[Path, list[str]]:
    """The checkpoint that ckpt= names, or the one given, and the other arguments."""
    named, typed = _take(options.arguments, "ckpt")
    where = where or named
    if where is None:
        near = next((each for each in typed if closest(each.partition("=")[0], ["ckpt"])), None)
        raise UserError(
            "which weights?", given=near or " ".join(typed) or "nothing", allowed="ckpt=<run folder or checkpoint>",
            do=f"python {SCRIPTS[job]} ckpt=runs/<domain>/<model>/<run>",
        )  # fmt: skip
    checkpoint, remark = _checkpoint("ckpt", where, ("best", "last"))
    if remark:
        print(f"\n{remark}", file=sys.stderr)
    return checkpoint, typed


def _exists(where: str | Path) -> bool:
    try:
        return Path(where).exists()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _checkpoint(key: str, where: str, prefer: tuple[str, ...]) -> tuple[Path, str | None]:
    if not _exists(where):
        parent = next((each for each in Path(where).parents if _exists(each) and each.is_dir()), Path())
        # A folder that merely looks alike and holds no run would be the wrong thing to type.
        beside = sorted(_runs_in(parent, "*"))
        runs = beside or sorted(_runs_in(Path("runs"), "*/*/*"), key=lambda run: run.name)
        near = closest(Path(where).name, [run.name for run in beside])
        raise UserError(
            "there is no such run or checkpoint", given=f"{key}={where}",
            allowed=[str(run) for run in runs[-MOST_RUNS:]] or "a run's folder; there is none here yet",
            do=f"{key}={parent / near}" if near else None,
        )  # fmt: skip
    within = [] if (Path(where) / "checkpoints").exists() else _runs_in(Path(where), "*", "*/*", "*/*/*")
    if within:
        within.sort(key=lambda run: run.stat().st_mtime, reverse=True)
        raise UserError(
            "this folder holds several runs" if len(within) > 1 else "the run is a folder further down",
            given=f"{key}={where}", allowed=[str(run) for run in within[:MOST_RUNS]], do=f"{key}={within[0]}",
        )  # fmt: skip
    from ..checkpoints.folder import find

    return find(where, prefer)


def _runs_in(folder: Path, *patterns: str) -> list[Path]:
    """The runs at some depth below a folder: what has checkpoints and the configuration that they were trained with."""
    found = {each.parent for pattern in patterns for each in folder.glob(f"{pattern}/checkpoints")}
    return [each for each in found if (each / "config.yaml").is_file()]


def _take(arguments: Sequence[str], key: str) -> tuple[str | None, list[str]]:
    """The value of `key=...` and the other arguments."""
    values = [each.partition("=")[2] for each in arguments if each.startswith(f"{key}=")]
    return (values[-1] if values else None), [each for each in arguments if not each.startswith(f"{key}=")]
