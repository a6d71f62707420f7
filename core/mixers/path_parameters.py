"""Telling a checkpoint of other paths from a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from ..errors import UserError

PATH_PARAMETERS = ("A_", "D", "conv", "x_proj", "dt_proj")


def check_path_parameters(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise a UserError where a checkpoint's mixers have other paths, or other sets of parameters, than the model's.

    Args:
        model: any module; the mixers in it are looked at.
        state_dict: with the model's own names.
    """
    for name, mixer in model.named_modules():
        if not hasattr(mixer, "parameters_per_path"):
            continue
        prefix = f"{name}." if name else ""
        mine = {key for key in mixer.state_dict() if key.startswith(PATH_PARAMETERS)}
        theirs = {key for key in _under(prefix, state_dict) if key.startswith(PATH_PARAMETERS)}
        if theirs and mine != theirs:
            raise UserError(
                "the checkpoint was saved with another scan, or other parameters per path, than this model's",
                given=f"only in the checkpoint: {', '.join(sorted(theirs - mine)) or 'nothing'} (in {name or 'the mixer'})",
                allowed=f"scan={mixer.scan}, parameters={mixer.parameters_per_path}; only in the model: "
                f"{', '.join(sorted(mine - theirs)) or 'nothing'}",
                do="build the model with the scan and parameters that the checkpoint was trained with",
            )


def _under(prefix: str, names: Iterable[str]) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in names if name.startswith(prefix))
