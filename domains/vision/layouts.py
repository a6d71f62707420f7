"""What published weights of the image models look like: which model they are of, and what that is called with for their shapes.

Each layout is recognised by a name that no other has, in the words of its authors' checkpoints or of the models here, and says the
arguments as far as names and shapes tell; what they do not tell (heads, directions, windows) is that of the published size.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...core.errors import UserError
from .models import (
    VSSD,
    EfficientVMamba,
    GroupMamba,
    LocalVim,
    LocalVimToken,
    LocalVMamba,
    MambaND,
    MambaVision,
    MSVMamba,
    PlainMamba,
    SpatialMamba,
    VideoMamba,
    Vim,
    VMamba,
    efficientvmamba,
    groupmamba,
    mamband,
    mambavision,
    spatialmamba,
    vmamba,
)  # fmt: skip
from .models.backbone import with_names
from .models.localmamba import searched_directions

IMAGE_SIZE = 224  # what the published weights were trained at, as far as their shapes tell
PREFIXES = ((r"^(module\.)+", ""), (r"^backbone\.", ""), (r"^head\.fc\.", "head."))
Weights = Mapping[str, Tensor]


class Layout(NamedTuple):
    """A model, what tells its weights from others', and its arguments for weights of these shapes."""

    model: type[nn.Module]
    mark: str
    arguments: Callable[[Weights], dict[str, Any]]


def find(weights: Weights, where: str | Path, name: str | None = None) -> Layout:
    """The layout of weights.

    Args:
        where: they come from; a VideoMamba's for images are told from a Vim's by its name alone.
        name: of the model, as in `model=<name>`; None: what the weights tell.

    Raises:
        UserError: none of them is of such weights.
    """
    if name is not None:
        found = [each for each in LAYOUTS if module_of(each.model) == name]
        if not found:
            allowed = sorted({module_of(each.model) for each in LAYOUTS})
            raise UserError("there is no such model with published weights", given=f"layout={name}", allowed=allowed)
        return found[0]
    names = with_names(weights, PREFIXES)
    for layout in LAYOUTS:
        if any(re.search(layout.mark, each) for each in names):
            if layout.model is Vim and "videomamba" in Path(where).name.lower():
                return OF_VIDEOMAMBA
            return WITH_TOKEN if layout.model is LocalVim and "cls_token" in names else layout
    raise UserError(
        "these are not the weights of an image model in its authors' layout",
        given=f"{where}: {', '.join(list(weights)[:3]) or 'no weights'} …",
        allowed='a .pth with {"model": …} or {"state_dict": …}, or a .safetensors, of '
        + ", ".join(sorted({module_of(each.model) for each in LAYOUTS})),
    )


def arguments_of(
    weights: Weights, where: str | Path = "", name: str | None = None
) -> tuple[type[nn.Module], dict[str, Any]]:
    """The model that weights are of, and what it is called with.

    Raises:
        UserError: they are of none, or a part that tells the arguments is missing.
    """
    layout = find(weights, where, name)
    try:
        return layout.model, layout.arguments(with_names(weights, PREFIXES))
    except (KeyError, StopIteration, ValueError) as error:
        raise UserError(
            f"these are not the weights of a {layout.model.__name__} in its authors' layout",
            given=f"{where}: no {error.args[0] if error.args else 'layers'}",
        ) from error


def module_of(model: type[nn.Module]) -> str:
    """The name of the model's module, which is the one that `model=` means."""
    return model.__module__.rpartition(".")[2]


def _count(weights: Weights, pattern: str) -> int:
    """One more than the largest number in the place of the pattern's group."""
    return max(int(found[1]) for name in weights if (found := re.search(pattern, name))) + 1


def _depths(weights: Weights, pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has; the pattern's groups are the stage and the block."""
    last: dict[int, int] = {}
    for name in weights:
        if found := re.search(pattern, name):
            stage, block = int(found[1]), int(found[2])
            last[stage] = max(last.get(stage, 0), block + 1)
    if not last:
        raise KeyError(pattern)
    return tuple(last[stage] for stage in sorted(last))


def _shape(weights: Weights, *names: str) -> tuple[int, ...]:
    """Of the first of the tensors that is there."""
    for name in names:
        if name in weights:
            return tuple(weights[name].shape)
    raise KeyError(names[0])


def _classes(weights: Weights) -> int:
    found = [name for name in ("classifier.head.weight", "head.weight") if name in weights]
    return weights[found[0]].shape[0] if found else 0


def _square(weights: Weights, patch: int, class_tokens: int = 0) -> int:
    """Side of the square images that the positions are of, in pixels."""
    return math.isqrt(_shape(weights, "pos_embed")[1] - class_tokens) * patch


def _vim(weights: Weights) -> dict[str, Any]:
    """Stride and size: of those that fit the positions 224 pixels, with patches that overlap where they must (the "+" models), else
    what patches side by side make."""
    patches, positions = weights["patch_embed.proj.weight"], weights["pos_embed"].shape[1]
    mixer = {n.removeprefix("layers.0.mixer."): t for n, t in weights.items() if n.startswith("layers.0.mixer.")}
    class_token = "double" if "cls_token_head" in weights else "middle" if "cls_token" in weights else "none"
    side = math.isqrt(positions - {"double": 2, "middle": 1, "none": 0}[class_token])
    patch = patches.shape[-1]
    stride, rest = divmod(IMAGE_SIZE - patch, side - 1) if side > 1 else (patch, 0)
    size = IMAGE_SIZE
    if rest or stride > patch:
        size, stride = side * patch, patch
    inner = mixer["out_proj.weight"]
    return {
        "img_size": size, "patch_size": patch, "stride": stride, "in_chans": patches.shape[1], "embed_dim": patches.shape[0],
        "depth": _count(weights, r"^layers\.(\d+)\."), "d_state": mixer["A_log"].shape[-1],
        "d_conv": mixer["conv1d.weight"].shape[-1], "expand": inner.shape[1] / inner.shape[0], "class_token": class_token,
        "num_classes": _classes(weights), "norm": "layer" if "norm_f.bias" in weights else "rms",
        "parameters": "separate" if "conv1d_b.weight" in mixer else "decay" if "A_b_log" in mixer else "shared",
    }  # fmt: skip


def _videomamba(weights: Weights) -> dict[str, Any]:
    patches = weights["patch_embed.proj.weight"]
    found = _vim({**weights, "patch_embed.proj.weight": patches[:, :, 0] if patches.dim() == 5 else patches})
    found = {name: value for name, value in found.items() if name not in ("class_token", "parameters", "stride")}
    found["img_size"] = _square(weights, found["patch_size"], 1)
    if "temporal_pos_embedding" in weights:
        tube = patches.shape[2] if patches.dim() == 5 else 1
        found |= {"tube": tube, "frames": tube * weights["temporal_pos_embedding"].shape[1]}
    return found


BLOCK = r"^layers\.(\d+)\.blocks\.(\d+)\."


def _staged(weights: Weights, norm: str, block: str = BLOCK) -> dict[str, Any]:
    """Widths and depths of stages, `norm` being a vector of a stage's first block; channels and classes."""
    depths = _depths(weights, block)
    widths = tuple(_shape(weights, *(norm.format(stage=stage),))[0] for stage in range(len(depths)))
    # The stem's convolutions stand in the order of their names, those of a file in any.
    first = min(name for name, each in weights.items() if name.startswith("patch_embed.") and each.dim() == 4)
    channels = weights[first].shape[1]
    return {"dims": widths, "depths": depths, "in_chans": channels, "num_classes": _classes(weights)}


def _scanned(weights: Weights, mixer: str) -> dict[str, Any]:
    """States and inner channels of a mixer of stacked paths."""
    inner = _shape(weights, f"{mixer}.out_proj.weight")
    return {"d_state": _shape(weights, f"{mixer}.A_logs")[1], "expand": inner[1] / inner[0]}


PATH_SCANS = {1: "raster", 2: "bidirectional", 4: "cross"}


def _vmamba(weights: Weights) -> dict[str, Any]:
    weights = with_names(weights, vmamba.RENAMED)
    mixer, found = "layers.0.blocks.0.op", _staged(weights, "layers.{stage}.blocks.0.norm.weight")
    found |= _scanned(weights, mixer)
    hidden = weights.get("layers.0.blocks.0.mlp.fc1.weight")
    found["mlp_ratio"] = 0 if hidden is None else hidden.shape[0] / hidden.shape[1]
    # Only the first version's tokens are whole patches.
    found["version"] = "v05_noz" if "patch_embed.5.weight" in weights else "v0"
    found["scan"] = PATH_SCANS[_shape(weights, f"{mixer}.dt_projs_bias")[0]]
    return found


def _localvmamba(weights: Weights) -> dict[str, Any]:
    found = {name: value for name, value in _vmamba(weights).items() if name not in ("version", "scan", "mlp_ratio")}
    return {**found, "compat": "published", "directions": searched_directions("localvmamba", found["depths"])}


def _localvim(weights: Weights) -> dict[str, Any]:
    patches = weights["patch_embed.proj.weight"]
    mixer = "layers.0.blocks.0.op.A_0_log" if any(".blocks." in name for name in weights) else "layers.0.mixer.A_log_0"
    depth = _count(weights, r"^layers\.0\.blocks\.(\d+)\." if ".blocks." in mixer else r"^layers\.(\d+)\.")
    return {
        "img_size": _square(weights, patches.shape[-1]), "patch_size": patches.shape[-1], "in_chans": patches.shape[1],
        "embed_dim": patches.shape[0], "depth": depth, "d_state": weights[mixer].shape[1],
        "num_classes": _classes(weights), "directions": searched_directions("localvim", (patches.shape[0], depth)),
        "compat": "published",
    }  # fmt: skip


def _localvim_token(weights: Weights) -> dict[str, Any]:
    own = any(name.endswith("mixer.A_0_log") for name in weights)
    names = {"conv1d.weight": "conv1d_0.weight", "A_log": "A_0_log" if own else "A_log_0"}
    weights = {
        **weights,
        **{f"layers.0.mixer.{ours}": weights[f"layers.0.mixer.{theirs}"] for ours, theirs in names.items()},
    }
    found = {name: value for name, value in _vim(weights).items() if name != "parameters"}
    return {**found, "directions": searched_directions("localvim", (found["embed_dim"], found["depth"]))}


def _msvmamba(weights: Weights) -> dict[str, Any]:
    weights = with_names(weights, vmamba.RENAMED)
    return {
        **_staged(weights, "layers.{stage}.blocks.0.norm.weight"), **_scanned(weights, "layers.0.blocks.0.op"),
    }  # fmt: skip


def _efficientvmamba(weights: Weights) -> dict[str, Any]:
    weights = efficientvmamba.checkpoint_filter_fn(weights, None)
    depths = _depths(weights, BLOCK)
    widths = [
        _shape(weights, f"layers.{stage}.blocks.0.norm.weight", f"layers.{stage}.blocks.0.conv_pw2.1.weight")[0]
        for stage in range(len(depths))
    ]
    scanned = _scanned(weights, "layers.0.blocks.0.op")
    return {
        "dims": tuple(widths), "depths": depths, "in_chans": _shape(weights, "patch_embed.0.weight")[1], "compat": "published",
        "num_classes": _classes(weights), "d_state": scanned["d_state"], "expand": round(scanned["expand"]),
    }  # fmt: skip


def _plainmamba(weights: Weights) -> dict[str, Any]:
    layer = r"^layers\.0\.blocks\.(\d+)\." if any(".blocks." in name for name in weights) else r"^layers\.(\d+)\."
    behind = {int(found[1]) for name in weights if (found := re.search(layer + r"dw\.0\.", name))}
    mixer = "layers.0.blocks.0.mamba" if ".blocks" in layer else "layers.0.mamba"
    patch = 2 * weights["patch_embed.projection.weight"].shape[-1]
    inner = weights[f"{mixer}.out_proj.weight"]
    return {
        "img_size": _square(weights, patch), "patch_size": patch, "in_chans": weights["patch_embed.stem.0.weight"].shape[1],
        "embed_dim": weights["pos_embed"].shape[2], "depth": _count(weights, layer), "depthwise_layers": tuple(sorted(behind)),
        "convs": sum(name.startswith("patch_embed.convs.") and t.dim() == 4 for name, t in weights.items()),
        "d_state": weights[f"{mixer}.A_log"].shape[1], "expand": round(inner.shape[1] / inner.shape[0]),
        "num_classes": _classes(weights), "compat": "published",
    }  # fmt: skip


def _mambavision(weights: Weights) -> dict[str, Any]:
    depths = _depths(weights, r"^levels\.(\d+)\.blocks\.(\d+)\.")
    dim, in_dim = weights["patch_embed.conv_down.3.weight"].shape[0], weights["patch_embed.conv_down.0.weight"].shape[0]
    known = [each for each in mambavision.SIZES.values() if (each["dim"], each["depths"]) == (dim, depths)]
    usual = known[0] if known else {"num_heads": tuple(max(dim * 2**stage // 40, 1) for stage in range(len(depths)))}
    windows = (8,) * (len(depths) - 2) + mambavision.WINDOWS[-2:]
    return {
        "dim": dim, "in_dim": in_dim, "depths": depths, "num_heads": usual["num_heads"],
        "window_size": usual.get("window_size", windows), "in_chans": weights["patch_embed.conv_down.0.weight"].shape[1],
        "layer_scale": 1e-5 if any(name.endswith("gamma_1") for name in weights) else None,
        "d_state": next(t.shape[1] for name, t in weights.items() if name.endswith("mixer.A_log")),
        "num_classes": _classes(weights), "compat": "published",
    }  # fmt: skip


def _mamband(weights: Weights) -> dict[str, Any]:
    patches = weights["patch_embed.projection.weight"]
    if any(".blocks." in name for name in weights):
        depths, mixer = _depths(weights, BLOCK), "layers.0.blocks.0.mixer"
    else:
        total, mixer = _count(weights, r"^layers\.(\d+)\."), "layers.0.mixer"
        ends = {int(found[1]) + 1 for name in weights if (found := re.search(mamband.MERGED, name))}
        ends = [0, *sorted(ends), total]
        depths = tuple(end - begin for begin, end in itertools.pairwise(ends) if end > begin)
    inner = weights[f"{mixer}.out_proj.weight"]
    return {
        "img_size": _square(weights, patches.shape[-1]), "patch_size": patches.shape[-1], "in_chans": patches.shape[1],
        "embed_dim": patches.shape[0], "depths": depths, "d_state": weights[f"{mixer}.A_log"].shape[1],
        "expand": inner.shape[1] / inner.shape[0], "num_classes": _classes(weights), "compat": "published",
    }  # fmt: skip


def _groupmamba(weights: Weights) -> dict[str, Any]:
    weights = groupmamba.renamed(weights)
    found = _staged(weights, "layers.{stage}.blocks.0.norm2.weight")
    ratios = [
        _shape(weights, f"layers.{stage}.blocks.0.mlp.fc1.weight")[0] // width
        for stage, width in enumerate(found["dims"])
    ]
    return {
        **found, "stem_dim": weights["patch_embed.conv.0.weight"].shape[0], "mlp_ratios": tuple(ratios),
        "d_state": weights["layers.0.blocks.0.attn.mamba_g1.A_logs"].shape[1], "distilled": "dist_head.weight" in weights,
    }  # fmt: skip


def _spatialmamba(weights: Weights) -> dict[str, Any]:
    weights = with_names(weights, spatialmamba.RENAMED)
    found = _staged(weights, "layers.{stage}.blocks.0.norm1.weight")
    hidden, expand = weights["layers.0.blocks.0.mlp.fc1.weight"], _scanned(weights, "layers.0.blocks.0.attn")["expand"]
    return {**found, "expand": expand, "mlp_ratio": hidden.shape[0] / hidden.shape[1], "compat": "published"}


def _vssd(weights: Weights) -> dict[str, Any]:
    found = _staged(weights, "layers.{stage}.blocks.0.norm1.weight")
    heads = [weights.get(f"layers.{stage}.blocks.0.attn.A_log") for stage in range(len(found["depths"]))]
    known = [each.shape[0] for each in heads if each is not None]
    attention = len(heads) - len(known)
    # Attention's heads are as wide as the others', where nothing says them.
    known += [known[0] * found["dims"][stage] // found["dims"][0] for stage in range(len(known), len(heads))]
    hidden, inner = weights["layers.0.blocks.0.mlp.fc1.weight"], weights["layers.0.blocks.0.attn.out_proj.weight"]
    states = (weights["layers.0.blocks.0.attn.conv2d.weight"].shape[0] - inner.shape[1]) // 2
    return {
        **found, "num_heads": tuple(known), "d_state": states, "expand": inner.shape[1] / inner.shape[0],
        "mlp_ratio": hidden.shape[0] / hidden.shape[1], "attention_stages": attention,
    }  # fmt: skip


OF_VIDEOMAMBA = Layout(VideoMamba, r"^temporal_pos_embedding$", _videomamba)
# Not told by one name: a LocalVim's with a class token among them.
WITH_TOKEN = Layout(LocalVimToken, r"(?!)", _localvim_token)
# The first whose mark is found: what is more special stands before what it was made from.
LAYOUTS = (
    OF_VIDEOMAMBA,
    Layout(PlainMamba, r"\.mamba\.direction_Bs$", _plainmamba),
    Layout(MambaVision, r"^levels\.0\.blocks\.0\.conv1\.", _mambavision),
    Layout(LocalVMamba, r"\.op\.multi_scan\.attn\.", _localvmamba),
    WITH_TOKEN,
    Layout(LocalVim, r"\.(mixer|op)\.x_proj_0\.", _localvim),
    Layout(EfficientVMamba, r"\.conv_branch\.", _efficientvmamba),
    Layout(MSVMamba, r"\.op\.conv2d_b1\.", _msvmamba),
    Layout(GroupMamba, r"\.attn\.mamba_g1\.", _groupmamba),
    Layout(SpatialMamba, r"\.state_fusion\.alpha$", _spatialmamba),
    Layout(VSSD, r"^layers\.0\.blocks\.0\.attn\.A_log$", _vssd),
    Layout(MambaND, r"^patch_embed\.projection\.", _mamband),
    Layout(VMamba, r"^layers\.0\.blocks\.0\.(op|self_attention)\.", _vmamba),
    Layout(Vim, r"^layers\.0\.mixer\.", _vim),
)
