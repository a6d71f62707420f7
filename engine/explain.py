"""predict.py with explain=: a picture of what a trained model's answers rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .command_line.config import Config
from .command_line.convert import unknown_key


def read_prompt(arguments: Sequence[str]) -> str:
    """The text of the one `prompt=...` among the arguments, which may hold nothing else; "" where there is none.

    Raises:
        UserError: another key.
    """
    prompt = ""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError("not of the form key=value", given=argument, do=f'prompt="{argument}"')
        if key != "prompt":
            raise unknown_key(key, ["ckpt", "explain", "prompt"], value)
        prompt = value
    return prompt


def explain(
    config: Config,
    checkpoint: Path,
    method: str,
    prompt: str = "",
    *,
    allow: Sequence[str] = (),
    say: Callable[[str], Any] = print,
) -> Path:
    """Draws what answers of a run's model rest on and says where the picture is.

    Args:
        config: the configuration of the run that the checkpoint is from.
        checkpoint: a checkpoint folder.
        method: one of core.explanation.METHODS.
        prompt: the text to answer, where the model reads text; of images, test images are taken.
        allow: further packages that a `_target_` may come from.
        say: where the words go.

    Returns:
        the picture's file, explained_<method>.png in the run's folder.

    Raises:
        UserError: an unknown method, a model or task without such a picture, weights that do not fit.
    """
    from ..core.explanation import check_method

    check_method(method, "explain")
    from .training.assembly import build_trained
    from .training.hardware import choose_hardware
    from .training.run_folder import run_of
    from .training.targets import build

    hardware = choose_hardware(config.trainer)
    parts = build_trained(config, checkpoint, allow, with_data=False)
    task = parts.task.to(hardware.device).eval()

    def batch() -> Any:
        data = parts.data if parts.data is not None else build(config.data, allow)
        return _to(next(iter(data.test_dataloader())), hardware.device)

    found = task.explain(method, prompt, batch)
    if found is None:
        raise UserError(
            "there is no picture of what this run's answers rest on", given=f"task {type(task).__name__}, "
            f"model={config.model.get('name')}", allowed="language models, text classifiers, Vim",
        )  # fmt: skip
    return _keep(found, run_of(checkpoint) / f"explained_{method}.png", say)


def explain_published(
    model: Any, tokenizer: Any, method: str, prompt: str, *, say: Callable[[str], Any] = print
) -> Path:
    """The same of a published language model; its folder may be the hub's, so the picture goes to the working directory.

    Raises:
        UserError: an unknown method, a prompt without a token.
    """
    from ..core.explanation import check_method

    check_method(method, "explain")
    from ..domains.nlp.explanation import explain_next_token

    return _keep(explain_next_token(model, tokenizer, prompt, method), Path(f"explained_{method}.png"), say)


def _keep(found: tuple[Any, str], path: Path, say: Callable[[str], Any]) -> Path:
    from .callbacks.figure_file import save_figure

    figure, said = found
    save_figure(figure, path)
    say(f"\n  answer   {said}\n  picture  {path}\n")
    return path


def _to(batch: Any, device: str) -> Any:
    from lightning.fabric.utilities import move_data_to_device

    return move_data_to_device(batch, device)
