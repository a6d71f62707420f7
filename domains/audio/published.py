"""Published weights of models of sound, in the layouts in which their authors hand them out.

    Mamba-TasNet, DPMamba   a folder with encoder.ckpt, masknet.ckpt, decoder.ckpt (SpeechBrain)
    SPMamba, SEMamba, AuM   a file of tensors by name, perhaps within "state_dict", "generator" or "model", perhaps behind "module."
    SSAMBA                  the same, its Audio Mamba behind "v.", which an AuM begins with

run = load("save/CKPT+2024")                   a separator, as predict.py ckpt= takes it
weights = read_weights("base_scratch.pth", m)  for a model of other sounds or classes: positions resampled
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...data.audio.pairs import Pairs
from ..trained import Trained
from ..weight_files import names_in, read
from .models.aum import AuM
from .models.dpmamba import DPMamba
from .models.log_mel import Fbank
from .models.semamba import SEMamba
from .models.spmamba import SPMamba
from .models.tasnet import MambaTasNet

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
MUST_AGREE = ("num_classes", "sources", "rate")  # of what a model is of and what data say
PARTS = ("encoder", "masknet", "decoder")
# A name that only this model's weights have.
MARKS = {
    "masknet.mamba_net.": MambaTasNet, "masknet.dual_mdl.": DPMamba, "intra_mamba.": SPMamba, "TSMamba.": SEMamba,
    "pos_embed.pos_embed": AuM, "v.pos_embed": AuM,
}  # fmt: skip
WRAPPINGS = ("state_dict", "generator", "model", "model_state_dict")
# Mean and deviation of the log-mel levels that AuM's authors trained it on, by its classes: AudioSet, VGGSound, Speech Commands.
LEVELS = {527: (-4.2677393, 4.5689974), 309: (-5.0767093, 4.4533687), 35: (-6.845978, 5.5654526)}
PREFIXES = ("module.", "audio_model.", "_orig_mod.")
MELS = 128  # of what AuM and SSAMBA were trained on


def is_published(where: str) -> bool:
    """Whether this, which is no run, holds weights of a model of sound: SpeechBrain's parts in a folder, a file of such names."""
    path = Path(where).expanduser()
    if path.is_dir():
        return all((path / f"{part}.ckpt").is_file() for part in PARTS)
    if not path.is_file() or path.suffix not in SUFFIXES:
        return False
    names = names_in(path)
    return any(mark.encode() in names for mark in MARKS)


def read_weights(where: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """Published weights for a model to begin with; an AuM's positions are resampled to its own patches.

    Raises:
        UserError: there are no such weights, or they are another model's.
    """
    weights, kind = _read(where)
    if not isinstance(model, kind):
        given = f"{where} for {type(model).__name__}"
        raise UserError("these are another model's weights", given=given, allowed=kind.__name__, do="model=<its name>")
    if isinstance(model, AuM):
        # Patches of 16 by 16 are the published ones', of MELS mels; other ones are of as many mels as the model's.
        published = weights["patch_embed.proj.weight"].shape[2:] == (16, 16)
        rows = MELS // 16 if published else model.grid.sizes[0]
        weights["pos_embed.pos_embed"] = _resampled(weights["pos_embed.pos_embed"], rows, model.grid.sizes)
        for name, own in model.head.state_dict().items():  # SSAMBA's is for its own objective
            weights.setdefault(f"head.{name}", own)
    return weights


def load(where: str | Path, device: str = "cpu", rate: int | None = None) -> Trained:
    """A model with published weights, of the sizes that they are of.

    Args:
        where: a folder or a file. device: of the model.
        rate: samples a second of the sounds it was trained with; None: the published models' (separation 8,000, others 16,000).

    Raises:
        UserError: there are no such weights.
    """
    weights, kind = _read(where)
    try:
        model = ARGUMENTS[kind](weights)
        if kind is AuM:
            mean, deviation = LEVELS.get(model.head.out_features, LEVELS[527])
            model.front = Fbank(rate or 16000, model.frames, mean, deviation)
        model.load_state_dict(weights)
    except (KeyError, IndexError, RuntimeError, ZeroDivisionError) as error:
        given = f"{where}: {str(error).splitlines()[0][:200]}"
        raise UserError(
            f"these are not the weights of {kind.__name__} as its authors publish it", given=given
        ) from error
    describe: dict[str, Any] = {"name": str(where)}
    if kind is AuM:
        describe |= {"num_classes": model.head.out_features, "samples": model.frames * (rate or 16000) // 100}
    else:
        names = ["clean"] if model.sources == 1 else [f"s{number + 1}" for number in range(model.sources)]
        describe |= {"sources": model.sources, "names": names}
    describe["rate"] = rate or (8000 if kind in (MambaTasNet, DPMamba, SPMamba) else 16000)
    return Trained(model.to(device).eval(), None, SimpleNamespace(sounds=Pairs.sounds), describe, device, Path())


def reading(run: Trained) -> dict[str, Any]:
    """The settings of data with which sounds are read as a model that `load` gave takes them."""
    return {"rate": run.describe["rate"]}


def _read(where: str | Path) -> tuple[dict[str, Tensor], type[nn.Module]]:
    """Weights under the names of the models here, and the model."""
    path = Path(where).expanduser()
    if path.is_dir():
        weights = {f"{part}.{name}": each for part in PARTS for name, each in _tensors(path / f"{part}.ckpt").items()}
    else:
        weights = _tensors(path)
    for prefix in PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): each for name, each in weights.items()}
    kind = next(
        (kind for mark, kind in MARKS.items() if any(name.startswith(mark) or f".{mark}" in name for name in weights)),
        None,
    )
    if kind is None:
        raise UserError("these are the weights of no model of sound here", given=str(where), allowed=sorted(_KNOWN))
    if "v.pos_embed" in weights:
        weights = {name.removeprefix("v."): each for name, each in weights.items() if name.startswith("v.")}
        weights = {name: each for name, each in weights.items() if not name.startswith("head.")}
        weights["pos_embed.pos_embed"] = weights.pop("pos_embed")
    return weights, kind


_KNOWN = {kind.__name__ for kind in MARKS.values()} | {"SSAMBA"}


def _tensors(path: Path) -> dict[str, Tensor]:
    found = read(path)
    for key in WRAPPINGS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    return {name: each for name, each in dict(found).items() if isinstance(each, Tensor)}


def _resampled(positions: Tensor, rows: int, grid: tuple[int, int]) -> Tensor:
    """Positions (1, 1 + patches, channels), the class token's first and then so many rows of mels, for another grid."""
    first, rest = positions[:, :1], positions[:, 1:]
    if rest.shape[1] == grid[0] * grid[1]:
        return positions
    if rest.shape[1] % rows:
        raise UserError("positions of another form", given=f"{rest.shape[1]} patches", allowed=f"a multiple of {rows}")
    table = rest.unflatten(1, (rows, -1)).permute(0, 3, 1, 2)
    table = F.interpolate(table, grid, mode="bilinear", antialias=True)
    return torch.cat([first, table.flatten(2).transpose(1, 2)], 1)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are behind a prefix."""
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix))


def _basis(weights: Mapping[str, Tensor]) -> dict[str, int]:
    channels, _, kernel = weights["encoder.conv1d.weight"].shape
    return {"channels": channels, "kernel": kernel}


def _mamba_tasnet(weights: Mapping[str, Tensor]) -> MambaTasNet:
    sizes, layers = _basis(weights), "masknet.mamba_net.layers."
    sources = weights["masknet.mask_conv1x1.conv.weight"].shape[0] // sizes["channels"]
    return MambaTasNet(
        sources, **sizes, depth=_count(weights, layers), **_mixing(weights, f"{layers}0.", sizes["channels"])
    )


def _dpmamba(weights: Mapping[str, Tensor]) -> DPMamba:
    sizes, layers = _basis(weights), "masknet.dual_mdl."
    depth = _count(weights, layers)
    sources = weights["masknet.conv2d.weight"].shape[0] // sizes["channels"]
    mixing = _mixing(weights, f"{layers}0.intra_mdl.layers.0.", sizes["channels"])
    return DPMamba(sources, **sizes, depth=depth, skip=depth > 8, **mixing)


def _mixing(weights: Mapping[str, Tensor], layer: str, channels: int) -> dict[str, float]:
    inner, states = weights[f"{layer}mixer.A_log"].shape
    return {"d_state": states, "expand": inner / channels}


def _spmamba(weights: Mapping[str, Tensor]) -> SPMamba:
    channels, width = weights["blocks.0.intra_linear.weight"].shape[1:]
    bins = weights["blocks.0.attn_concat_proj.2.gamma"].shape[3]
    inner = weights["blocks.0.attn_conv_Q_0.0.weight"].shape[0]
    heads = _count(weights, "blocks.0.attn_conv_Q_")
    return SPMamba(
        weights["deconv.weight"].shape[1] // 2, _count(weights, "blocks."), channels, width, 2 * (bins - 1), heads=heads,
        attention=inner * bins, **_mixing(weights, "blocks.0.intra_mamba.forward_blocks.0.", channels * width),
    )  # fmt: skip


def _semamba(weights: Mapping[str, Tensor]) -> SEMamba:
    channels = weights["dense_encoder.dense_conv_1.0.weight"].shape[0]
    bins = weights["mask_decoder.lsigmoid.slope"].shape[0]
    mixing = _mixing(weights, "TSMamba.0.time_mamba.forward_blocks.0.", channels)
    return SEMamba(channels, _count(weights, "TSMamba."), 2 * (bins - 1), **mixing)


def _aum(weights: Mapping[str, Tensor]) -> AuM:
    channels, _, patch, frames = weights["patch_embed.proj.weight"].shape
    columns = (weights["pos_embed.pos_embed"].shape[1] - 1) // (MELS // patch)
    form = (
        "separate"
        if "layers.0.mixer.conv1d_b.weight" in weights
        else "decay"
        if "layers.0.mixer.A_b_log" in weights
        else "shared"
    )
    scan = "bidirectional" if form != "shared" else "raster"
    return AuM(
        weights["head.weight"].shape[0], columns * frames, MELS, patch, channels, _count(weights, "layers."), form, scan,
        weights["layers.0.mixer.A_log"].shape[1], patch_frames=frames,
    )  # fmt: skip


ARGUMENTS: dict[type[nn.Module], Callable[[Mapping[str, Tensor]], nn.Module]] = {
    MambaTasNet: _mamba_tasnet, DPMamba: _dpmamba, SPMamba: _spmamba, SEMamba: _semamba, AuM: _aum,
}  # fmt: skip
