"""Whose parameters read a token for a selective scan: those of its path, those of all paths, or some of each.

A Mamba mixer is made with one of these classes. It adds the parameters to the mixer itself, under the names of published
checkpoints, and says what they make of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..initialisation import log_decay
from .path_layers import bias_left_out, multiplied, normed, product, readable

if TYPE_CHECKING:
    from .mamba import Mamba

NORMED = ("dt", "b", "c")
PATH_PARAMETERS = ("A_", "D", "conv", "x_proj", "dt_proj")


class PathParameters:
    """x_proj, dt_proj, A_log and D by mamba_ssm's names; a second path's carry `_b`, as in Vim, further ones `_c`, `_d`, ...

    Args:
        paths: of the mixer.
        suffixes: of each path's names, other than those.

    Attributes:
        ends: what the names of the layers end with, for each set of them. decay_ends: those of A_log.
        own: whether every path has layers of its own. follows: whether the convolution before them runs along each path, or once
            over all tokens in raster order. decoded: whether ops/mamba_decode computes the same of one path.
    """

    name = "separate"
    own = follows = decoded = True

    def __init__(self, paths: int, suffixes: Sequence[str] | None = None):
        suffixes = [_letter(path) for path in range(paths)] if suffixes is None else list(suffixes)
        if len(suffixes) < paths:
            raise UserError("each path needs a suffix", given=suffixes, allowed=f"{paths} suffixes")
        ends = [f"_{suffix}" if suffix else "" for suffix in suffixes[:paths]]
        self.ends = ends if self.own else ends[:1]
        self.decay_ends = self.ends if self.follows else ends

    def add(self, mixer: Mamba, begin: Callable[[Tensor, Tensor], None], norm_eps: float | None, factory: dict) -> None:
        """Add the parameters to a mixer.

        Args:
            begin: fills a step projection's weight (channels, rank) and bias (channels,).
            norm_eps: of learned norms over step, B and C; None: there are none.
        """
        decay = log_decay(mixer.d_inner, mixer.d_state, factory["device"])
        _keep(mixer, {f"A{end}_log": decay for end in self.decay_ends}, factory)
        _keep(mixer, {f"D{end}": torch.ones(mixer.d_inner, device=decay.device) for end in self.ends}, factory)
        sizes = (mixer.dt_rank, mixer.d_state, mixer.d_state)
        for end in self.ends:
            mixer.add_module(f"x_proj{end}", nn.Linear(mixer.d_inner, sum(sizes), bias=False, **factory))
            projection = nn.Linear(mixer.dt_rank, mixer.d_inner, **factory)
            begin(projection.weight, projection.bias)
            mixer.add_module(f"dt_proj{end}", projection)
            if norm_eps is not None:
                for name, size in zip(NORMED, sizes, strict=True):
                    mixer.add_module(f"{name}_layernorm{end}", nn.RMSNorm(size, norm_eps, **factory))

    def read(self, mixer: Mamba, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """delta without `step_bias`, B and C of every path from (batch, [paths,] length, channels); B and C may be views."""
        layers = self._layers(mixer, "x_proj")
        both, bias = product(layers, x), bias_left_out(layers)
        if bias is not None:
            both = both + (bias if bias.dim() == 1 else bias[:, None])
        step, B, C = both.split([mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1)
        if mixer.norms != "none":
            step, B, C = (self._normed(mixer, t, name) for t, name in zip((step, B, C), NORMED, strict=True))
        return product(self._layers(mixer, "dt_proj"), step), B, C

    def parts(self, mixer: Mamba) -> tuple[list[Tensor], ...] | None:
        """x_proj, dt_proj, A_log, D, bias of the step: lists of the paths' own, or of one; None where there is more to compute."""
        kind = type(self)
        if any(
            getattr(kind, name) is not getattr(PathParameters, name)
            for name in ("read", "decay_log", "skip", "step_bias")
        ):
            return None
        x_proj, dt_proj = (self._layers(mixer, name) for name in ("x_proj", "dt_proj"))
        if not self.follows or not (readable(x_proj) and readable(dt_proj)):
            return None
        if x_proj[0].bias is not None or dt_proj[0].bias is None:
            return None
        return (
            [layer.weight for layer in x_proj], [layer.weight for layer in dt_proj], self._decay_logs(mixer), self._skips(mixer),
            [layer.bias for layer in dt_proj],
        )  # fmt: skip

    def step_bias(self, mixer: Mamba) -> Tensor | None:
        """([paths,] channels), what `read` leaves out of delta; None: nothing."""
        return bias_left_out(self._layers(mixer, "dt_proj"))

    def decay_log(self, mixer: Mamba) -> Tensor:
        """log(-A), ([paths,] channels, states)."""
        return _stacked(self._decay_logs(mixer))

    def skip(self, mixer: Mamba) -> Tensor:
        """D, ([paths,] channels)."""
        return _stacked(self._skips(mixer))

    def _decay_logs(self, mixer: Mamba) -> list[Tensor]:
        return [getattr(mixer, f"A{end}_log") for end in self.decay_ends]

    def _skips(self, mixer: Mamba) -> list[Tensor]:
        return [getattr(mixer, f"D{end}") for end in self.ends]

    def _normed(self, mixer: Mamba, t: Tensor, name: str) -> Tensor:
        if mixer.norms == "weightless":
            return F.rms_norm(t, t.shape[-1:], eps=mixer.norm_eps)
        return normed(self._layers(mixer, f"{name}_layernorm"), t, mixer.norm_eps)

    def _layers(self, mixer: Mamba, name: str) -> list[nn.Module]:
        return [getattr(mixer, name + end) for end in self.ends]


class SharedParameters(PathParameters):
    """One set for all paths."""

    name, own, decoded = "shared", False, True


class OwnDecays(PathParameters):
    """One set, by which all tokens are convolved and projected once, but a decay for each path: Vim's first layer ("v1")."""

    name, own, follows, decoded = "decay", False, False, True


class StackedParameters(PathParameters):
    """Each path its own, all in one tensor each, by the names of VMamba's checkpoints: the convolution has no path's name.

    x_proj_weight (paths, rank + 2 states, channels), dt_projs_weight (paths, channels, rank), dt_projs_bias (paths, channels),
    A_logs (paths * channels, states), Ds (paths * channels).
    """

    name = "stacked"

    def __init__(self, paths: int):
        self.paths, self.ends = paths, [""]

    def add(self, mixer: Mamba, begin: Callable[[Tensor, Tensor], None], norm_eps: float | None, factory: dict) -> None:
        if norm_eps is not None:
            raise UserError(
                "stacked parameters have no learned norms", given="norms=learned", allowed=("none", "weightless")
            )
        decay = log_decay(self.paths * mixer.d_inner, mixer.d_state, factory["device"])
        _keep(mixer, {"A_logs": decay, "Ds": torch.ones(len(decay), device=decay.device)}, factory)
        layers = [
            nn.Linear(mixer.d_inner, mixer.dt_rank + 2 * mixer.d_state, bias=False, **factory)
            for _ in range(self.paths)
        ]
        mixer.x_proj_weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        mixer.dt_projs_weight = nn.Parameter(torch.empty(self.paths, mixer.d_inner, mixer.dt_rank, **factory))
        mixer.dt_projs_bias = nn.Parameter(torch.empty(self.paths, mixer.d_inner, **factory))
        for weight, bias in zip(mixer.dt_projs_weight.detach(), mixer.dt_projs_bias.detach(), strict=True):
            begin(weight, bias)
        mixer.dt_projs_bias._no_weight_decay = True

    def read(self, mixer: Mamba, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = multiplied(self._of_paths(mixer.x_proj_weight), x).split(
            [mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1
        )
        if mixer.norms == "weightless":
            parts = (F.rms_norm(t, t.shape[-1:], eps=mixer.norm_eps) for t in parts)
        step, B, C = parts
        return multiplied(self._of_paths(mixer.dt_projs_weight), step), B, C

    def parts(self, mixer: Mamba) -> tuple[Tensor, ...]:
        projections = self._of_paths(mixer.x_proj_weight), self._of_paths(mixer.dt_projs_weight)
        return *projections, self.decay_log(mixer), self.skip(mixer), self.step_bias(mixer)

    def step_bias(self, mixer: Mamba) -> Tensor:
        return self._of_paths(mixer.dt_projs_bias)

    def decay_log(self, mixer: Mamba) -> Tensor:
        return self._of_paths(mixer.A_logs.unflatten(0, (self.paths, -1)))

    def skip(self, mixer: Mamba) -> Tensor:
        return self._of_paths(mixer.Ds.unflatten(0, (self.paths, -1)))

    def _of_paths(self, t: Tensor) -> Tensor:
        """Without the paths axis where there is one path, as the layers of one path have it."""
        return t[0] if self.paths == 1 else t


PARAMETERS = {kind.name: kind for kind in (PathParameters, SharedParameters, OwnDecays, StackedParameters)}


def check_path_parameters(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise a UserError where a checkpoint's mixers have other paths, or other sets of parameters, than the model's.

    Args:
        model: any module; the mixers in it are looked at.
        state_dict: with the model's own names.
    """
    for name, mixer in model.named_modules():
        if not hasattr(mixer, "path_parameters"):
            continue
        prefix = f"{name}." if name else ""
        mine = {key for key in mixer.state_dict() if key.startswith(PATH_PARAMETERS)}
        theirs = {key for key in _under(prefix, state_dict) if key.startswith(PATH_PARAMETERS)}
        if theirs and mine != theirs:
            raise UserError(
                "the checkpoint was saved with another scan, or other parameters per path, than this model's",
                given=f"only in the checkpoint: {', '.join(sorted(theirs - mine)) or 'nothing'} (in {name or 'the mixer'})",
                allowed=f"scan={mixer.scan}, parameters={mixer.path_parameters.name}; only in the model: "
                f"{', '.join(sorted(mine - theirs)) or 'nothing'}",
                do="build the model with the scan and parameters that the checkpoint was trained with",
            )


def _keep(mixer: nn.Module, values: Mapping[str, Tensor], factory: dict) -> None:
    """Register what stays in float32 at least and does not decay."""
    kept = torch.promote_types(factory["dtype"] or torch.get_default_dtype(), torch.float32)
    for name, value in values.items():
        parameter = nn.Parameter(value.to(kept, copy=True))
        parameter._no_weight_decay = True
        mixer.register_parameter(name, parameter)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts)


def _letter(path: int) -> str:
    return "" if path == 0 else chr(ord("a") + path) if path < 26 else f"path{path}"


def _under(prefix: str, names: Iterable[str]) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in names if name.startswith(prefix))
