"""What forecasts and classes of series rest on: the attention hidden in a model's mixers, over its look-back and its variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.explanation import check_method, draw_matrix, explain, part_in_answer
from ...core.pictures import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .models.forecaster import Forecaster


class Explained(NamedTuple):
    """Parts in an answer; None where a model's tokens say nothing of them.

    Args:
        steps: (batch, variables, look-back), of each value of a window; the same for all variables where they are one token.
        variables: (batch, variables, variables), of the second in what is said of the first.
    """

    steps: Tensor | None
    variables: Tensor | None


def explain_windows(model: nn.Module, x: Tensor, marks: Tensor | None = None, method: str = "rollout") -> Explained:
    """What a model's answers to windows rest on.

    Args:
        model: a forecaster whose mixers are core's, or a classifier around one; in eval mode.
        x: (batch, look-back, variables). marks: its calendar.
        method: one of core.explanation.METHODS; "attribution" asks what raises the sum of the forecast, or the likeliest class.

    Raises:
        UserError: an unknown method, a model without hidden attention.
    """
    check_method(method)
    network = getattr(model, "encoder", None) if hasattr(model, "classifier") else model
    read = getattr(network, "tokens_are", None)
    if read is None:
        raise UserError(
            "this model's tokens are neither steps nor variables", given=type(network).__name__,
            allowed="mamba_forecaster, simba, smamba, bimamba_plus, cmamba, mambats, mambaformer",
        )  # fmt: skip

    def score(answer: Tensor) -> Tensor:
        return answer.sum() if model is network else answer.max(1).values.sum()

    inputs = (x,) if model is not network else (x, marks)
    found = explain(model, *inputs, method=method, score=score if method == "attribution" else None)
    return READ[read](network, found, *x.shape)


def _of_patches(network: Forecaster, found: Tensor, batch: int, length: int, variables: int) -> Explained:
    parts = part_in_answer(found, range(found.shape[1])).unflatten(0, (batch, -1))
    return Explained(_onto_steps(network, parts, length).expand(-1, variables, -1), None)


def _of_variables(network: Forecaster, found: Tensor, batch: int, length: int, variables: int) -> Explained:
    # of one window, or of each of its patches
    return Explained(None, found[:, :variables, :variables].unflatten(0, (batch, -1)).mean(1))


def _of_both(network: Forecaster, found: Tensor, batch: int, length: int, variables: int) -> Explained:
    order = torch.tensor(network.variable_order(), device=found.device)
    place, patches = order.argsort(), found.shape[1] // variables
    parts = part_in_answer(found, range(found.shape[1])).unflatten(1, (variables, patches))[:, place]
    pairs = found.view(batch, variables, patches, variables, patches).sum(4).mean(2)[:, place][:, :, place]
    return Explained(_onto_steps(network, parts, length), pairs)


def _of_steps(network: Forecaster, found: Tensor, batch: int, length: int, variables: int) -> Explained:
    parts = part_in_answer(found, range(length, found.shape[1]))[:, None, :length]
    return Explained(parts.expand(-1, variables, -1), None)


READ = {"patches": _of_patches, "variables": _of_variables, "both": _of_both, "steps": _of_steps}


def _onto_steps(network: Forecaster, parts: Tensor, length: int) -> Tensor:
    """Parts of patches, (..., patches), given evenly to their steps, (..., look-back)."""
    before, behind = getattr(network, "before", 0), getattr(network, "behind", 0)
    found = parts.new_zeros(*parts.shape[:-1], before + length + behind)
    for number in range(parts.shape[-1]):
        start = number * network.stride
        found[..., start : start + network.patch_len] += parts[..., number, None] / network.patch_len
    return found[..., before : before + length]


def draw_explained(
    x: Tensor, found: Explained, titles: Sequence[str], names: Sequence[str] | None = None, heading: str = ""
) -> Figure:
    """Windows (batch, look-back, variables), the parts of their steps behind them; or where those are not known, of variables."""
    if found.steps is None:
        return draw_matrix(found.variables.mean(0), names)
    from matplotlib.figure import Figure

    columns = min(x.shape[2], 3)
    figure = Figure((3.6 * columns, 1.5 * len(x) + 0.6), dpi=110, layout="constrained")
    figure.suptitle(heading, color=INK, fontsize=11)
    axes = figure.subplots(len(x), columns, squeeze=False)
    most, signed = float(found.steps.abs().amax()) or 1.0, bool((found.steps < 0).any())
    shades = {"cmap": "RdBu_r" if signed else "Reds", "vmin": -most if signed else 0, "vmax": most}
    for row in range(len(x)):
        for column in range(columns):
            axis, line = axes[row, column], x[row, :, column].float()
            low, high = float(line.min()), float(line.max()) + 1e-9
            heat = found.steps[row, column][None].float().numpy()
            axis.imshow(heat, extent=(-0.5, len(line) - 0.5, low, high), aspect="auto", **shades)
            axis.plot(line, color=INK, linewidth=0.9)
            name = names[column] if names else f"variable {column}"
            axis.set_title(f"{titles[row]}: {name}", fontsize=7, color=INK)
            axis.tick_params(labelsize=6)
    return figure
