"""From the hidden attention of a model's layers to one map of what each token's answer rests on (arXiv 2403.01590, section 4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError, check_choice
from ..mixers.walk import sizes_of
from ..stages import Staged, grids_of
from .matrices import UNROLL, can_unroll, mean_of, unroll

METHODS = ("raw", "rollout", "attribution")


def raw(layers: Sequence[Tensor]) -> Tensor:
    """Mean over layers of matrices (batch, length, length)."""
    return torch.stack(list(layers)).mean(0)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Attention followed through the layers and the residual stream (attention rollout, arXiv 2005.00928).

    Args:
        layers: matrices (batch, length, length), none negative, the first layer's first.

    Returns:
        (batch, length, length): the product of the layers' matrices plus identity, each row divided by its sum.
    """
    total = None
    for matrix in layers:
        matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        matrix = matrix / matrix.sum(-1, keepdim=True)
        total = matrix if total is None else matrix @ total
    return total


def attribution(layers: Sequence[Tensor], gradients: Sequence[Tensor], sees: Sequence[Tensor] | None = None) -> Tensor:
    """Rollout of matrices that are weighted by how much the score would rise with what a layer said (Mamba-attribution).

    Args:
        layers: matrices (batch, length, length), signed; scaled to 0 ... 1 a sample and layer.
        gradients: of the score with respect to each layer's output, (batch, length, channels); at each token the largest
            one over channels counts, where it is above 0.
        sees: which token can take anything from which in each layer, (batch, length, length) bool; scaling must not lift
            the others above 0 (a later token, another sequence). None: all.
    """
    weighted = []
    for matrix, gradient, pairs in zip(layers, gradients, sees or [None] * len(layers), strict=True):
        low, high = matrix.amin((1, 2), keepdim=True), matrix.amax((1, 2), keepdim=True)
        scaled = (matrix - low) / (high - low).clamp_min(torch.finfo(matrix.dtype).tiny)
        scaled = scaled if pairs is None else scaled.masked_fill(~pairs, 0)
        weighted.append(scaled * gradient.to(matrix.dtype).clamp_min(0).amax(-1)[..., None])
    return rollout(weighted)


def check_method(method: str, key: str = "method") -> None:
    """Raise a UserError, which calls it `key`, where this is not one of METHODS."""
    check_choice(key, method, METHODS, "method")


def part_in_answer(found: Tensor, rows: Sequence[int]) -> Tensor:
    """How much the tokens that an answer is read from take from every other token.

    A token's part in itself, which the residual stream makes the largest by far, is left out.

    Args:
        found: a map, (batch, length, length).
        rows: the tokens that the answer is read from: [-1] for the next token, the class tokens, all of them for a mean.

    Returns:
        (batch, length), the mean over `rows`.
    """
    own = torch.eye(found.shape[-1], dtype=torch.bool, device=found.device)
    return found.masked_fill(own, 0)[:, list(rows)].mean(1)


def explain(
    model: nn.Module,
    *inputs,
    method: str = "rollout",
    score: Callable[[object], Tensor] | None = None,
    layers: Sequence[int] | None = None,
    **options,
) -> Tensor:
    """A map of what each token of a model's last layer takes from each token of its first.

    Args:
        model: its mixers (Mamba, Mamba-2, Mamba-3, attention, any mixture) are looked at, in the order in which they are
            called.
        inputs, options: the model is called with.
        method: "raw" (mean over channels or heads and over layers), "rollout" (of the mean of absolute values) or "attribution".
        score: from the model's output to a number, for "attribution": a class's logit, say, summed over the batch.
        layers: which of the mixers, counted from 0; None: all.

    Returns:
        (batch, length, length), entry [b, i, j] from token j to token i; detached.

    Raises:
        UserError: an unknown method, attribution without a score, a model without such mixers or without those layers, a
            mixer that goes on from a state, mixers of different grids.
    """
    calls = _calls(model, inputs, options, method, score)
    chosen = range(len(calls)) if layers is None else list(layers)
    if not len(chosen) or not all(0 <= number < len(calls) for number in chosen):
        raise UserError("no such layers", given=list(chosen), allowed=f"0 to {len(calls) - 1}")
    calls = [calls[number] for number in chosen]
    if len(stages := _stages(calls)) > 1:
        raise UserError(
            "the tokens of these layers are not the same, so there is no map from the last to the first",
            given=f"{len(stages)} stages of {', '.join(str(len(stage)) for stage in stages)} layers",
            allowed="layers of one stage", do="explain_stages, which gives a map for each",
        )  # fmt: skip
    return _map(calls, method)


def explain_stages(
    model: Staged | nn.Module,
    *inputs,
    method: str = "rollout",
    score: Callable[[object], Tensor] | None = None,
    **options,
) -> list[Tensor]:
    """A map for each stage of a model, from the tokens of the stage's first layer to those of its last.

    Args:
        model: says `grids` (core/stages.py). All others, and what is raised: as in explain.

    Returns:
        for each of the grids (batch, tokens, tokens), extra tokens (class tokens) included.

    Raises:
        UserError: a model whose mixers walk other grids than it says.
    """
    grids = grids_of(model)
    maps = walked_maps(model, *inputs, method=method, score=score, **options)
    walked = [each.shape[-1] for _, each in maps]
    if walked != [grid.length for grid in grids]:
        raise UserError(
            "the model's mixers walk other grids than it says", given=f"grids of {[grid.length for grid in grids]} tokens",
            allowed=f"one for each stage: {walked} tokens",
        )  # fmt: skip
    return [each for _, each in maps]


def walked_maps(
    model: nn.Module,
    *inputs,
    method: str = "rollout",
    score: Callable[[object], Tensor] | None = None,
    **options,
) -> list[tuple[tuple[int, ...], Tensor]]:
    """A map for each run of mixers that are called one after the other with tokens of the same grid, and that grid's sizes.

    Args:
        as of explain; the model need not say its grids, and may call its mixers with parts of them (windows), each a sample.

    Returns:
        for each run its sizes and (samples, tokens, tokens).
    """
    stages = _stages(_calls(model, inputs, options, method, score))
    return [(sizes_of(stage[0][1][1], stage[0][1][0].shape[1])[0], _map(stage, method)) for stage in stages]


Called = tuple[nn.Module, tuple, Tensor | None]


def _stages(calls: Sequence[Called]) -> list[list[Called]]:
    """Calls one after the other that are of the same grid."""

    def grid(call: Called) -> tuple:
        x, walked, _ = call[1]
        return len(x), sizes_of(walked, x.shape[1])

    return [list(stage) for _, stage in itertools.groupby(calls, grid)]


def _map(calls: Sequence[Called], method: str) -> Tensor:
    with torch.no_grad():
        unrolled = (unroll(mixer, *given) for mixer, given, _ in calls)
        if method == "attribution":
            matrices, sees = zip(*((mean_of(each), each.token_sees()) for each in unrolled), strict=True)
            return attribution(matrices, [gradient for *_, gradient in calls], sees)
        matrices = [mean_of(each, torch.abs if method == "rollout" else None) for each in unrolled]
        return raw(matrices) if method == "raw" else rollout(matrices)


def _calls(model: nn.Module, inputs, options, method: str, score) -> list[Called]:
    """Each mixer's call: the mixer, its (x, grid, seq_idx), the score's gradient with respect to its output or None."""
    check_method(method)
    if (method == "attribution") != (score is not None):
        raise UserError("attribution, and it alone, needs a score", given=f"method={method}, score={score}")
    calls, outputs = [], []

    def note(mixer, given, keywords, output):
        named = dict(zip(("x", "grid", "state", "seq_idx"), given, strict=False)) | keywords
        if named.get("state") is not None:
            raise UserError("a state hides the tokens before it", given="a state", allowed="a whole sequence at once")
        calls.append((mixer, (named["x"].detach(), named.get("grid"), named.get("seq_idx"))))
        outputs.append(output[0])

    mixers = [module for module in model.modules() if can_unroll(module)]
    hooks = [mixer.register_forward_hook(note, with_kwargs=True) for mixer in mixers]
    try:
        with torch.set_grad_enabled(score is not None):
            answer = model(*inputs, **options)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise UserError(
            "there is no Mamba or attention mixer in this model to look into", given=type(model).__name__,
            allowed=[kind.__name__ for kind in UNROLL],
        )  # fmt: skip
    if score is None:
        return [(*call, None) for call in calls]
    gradients = torch.autograd.grad(score(answer).sum(), outputs, allow_unused=True)
    zeros = (torch.zeros_like(o) if g is None else g for g, o in zip(gradients, outputs, strict=True))
    return [(*call, gradient) for call, gradient in zip(calls, zeros, strict=True)]
