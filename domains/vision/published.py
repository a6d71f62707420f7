"""Published weights of image models: into those here that training begins with; Vim's, as hustvl published them, whole.

run = load("vim_t_midclstok_76p1acc.pth")     or load("hustvl/Vim-tiny-midclstok"), from the hub
weights = read_weights("vim_t.pth", model)    for a model of other images or classes: positions resampled
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...core.errors import UserError
from ...data.vision.photos import Photos
from ..trained import Trained
from .models.position import strip_wrapping
from .models.registration import FILTERS
from .models.vim import Vim
from .models.vim_timm import default_cfgs

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
OWNER = "hustvl/"
IMAGE_SIZE = 224  # what the published weights were trained at, as far as their patches tell


def is_published(where: str) -> bool:
    """Whether this, which is no run, names published weights: a file, a folder that holds one, or hustvl's name on the hub."""
    path = Path(where).expanduser()
    if path.is_dir():
        return len(_weights_in(path)) == 1
    return path.suffix in SUFFIXES if path.is_file() else where.startswith(OWNER)


def load(where: str | Path, device: str = "cpu", classes: str | Path | None = None) -> Trained:
    """A model with published weights, of the size and image size that they are of.

    Args:
        where: a file, a folder with one, or a name on the hub.
        device: of the model.
        classes: a file of class names, one a line, in the order of the labels; None: classes are numbers.

    Raises:
        UserError: there are no such weights, they are no Vim's, or the names are not as many as the classes.
    """
    weights = _read(where)
    model = Vim(**arguments_of(weights, where))
    _check(weights, model, where)
    model.load_state_dict(weights)
    names = None if classes is None else _names(Path(classes).expanduser(), model.num_classes)
    usual = next(iter(default_cfgs.values())).default
    mean, std = (
        [round(sum(each) / 3, 6)] if weights["patch_embed.proj.weight"].shape[1] == 1 else list(each)
        for each in (usual.mean, usual.std)
    )
    describe = {
        "name": str(where), "channels": weights["patch_embed.proj.weight"].shape[1], "image_size": list(model.img_size),
        "num_classes": model.num_classes, "classes": names, "mean": mean, "std": std,
    }  # fmt: skip
    data = _Published(Photos(model.img_size, mean, std, crop=usual.crop_pct))
    return Trained(model.to(device).eval(), None, data, describe, device, Path())


def read_weights(where: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """Published weights for a model to begin with: patches and position embeddings resampled to its own.

    The head stays as it was published; who puts it into a model of other classes leaves it out.

    Raises:
        UserError: there are no such weights, or they are for another kind of model.
    """
    if type(model) not in FILTERS:
        known = sorted(each.__name__ for each in FILTERS)
        raise UserError(
            "this model has no published weights", given=f"{where} for {type(model).__name__}", allowed=known
        )
    weights, own = FILTERS[type(model)](_read(where), model), model.state_dict()
    # The first convolution, whose channels are the images'.
    name = next(name for name, each in own.items() if each.dim() == 4)
    if name not in weights:
        given = f"{where} for {type(model).__name__}: no {name}"
        raise UserError("these are another model's weights", given=given, do="choose their model: model=<name>")
    if weights[name].shape[1] != own[name].shape[1]:
        from timm.models import adapt_input_conv

        weights[name] = adapt_input_conv(own[name].shape[1], weights[name])
    return weights


def arguments_of(weights: Mapping[str, Tensor], where: str | Path = "") -> dict[str, Any]:
    """What Vim is called with for weights of these shapes.

    Image size and stride do not stand in them: of the sizes that fit the number of positions, 224 pixels, with patches that
    overlap where they must (the "+" models), and without that what patches side by side make.

    Raises:
        UserError: these are no weights of a Vim.
    """
    try:
        patches, positions = weights["patch_embed.proj.weight"], weights["pos_embed"].shape[1]
        mixer = {
            name.removeprefix("layers.0.mixer."): tensor
            for name, tensor in weights.items()
            if name.startswith("layers.0.mixer.")
        }
        layers = {int(found[1]) for name in weights if (found := re.match(r"layers\.(\d+)\.", name))}
        states, taps, inner = mixer["A_log"].shape[-1], mixer["conv1d.weight"].shape[-1], mixer["out_proj.weight"]
    except KeyError as error:
        raise UserError(
            "these are not the weights of a Vim in its authors' layout", given=f"{where}: no {error.args[0]}",
            allowed='a .pth with {"model": …} or a .safetensors, with patch_embed, pos_embed and layers.0.mixer',
        ) from error  # fmt: skip
    class_token = "double" if "cls_token_head" in weights else "middle" if "cls_token" in weights else "none"
    side = math.isqrt(positions - {"double": 2, "middle": 1, "none": 0}[class_token])
    patch = patches.shape[-1]
    stride, rest = divmod(IMAGE_SIZE - patch, side - 1) if side > 1 else (patch, 0)
    size = IMAGE_SIZE
    if rest or stride > patch:
        size, stride = side * patch, patch
    head = weights.get("head.weight")
    return {
        "img_size": size, "patch_size": patch, "stride": stride, "in_chans": patches.shape[1], "embed_dim": patches.shape[0],
        "depth": len(layers), "d_state": states, "d_conv": taps, "expand": inner.shape[1] / inner.shape[0],
        "class_token": class_token, "num_classes": 0 if head is None else head.shape[0],
        "norm": "layer" if "norm_f.bias" in weights else "rms",
        "parameters": "separate" if "conv1d_b.weight" in mixer else "decay" if "A_b_log" in mixer else "shared",
    }  # fmt: skip


class _Published:
    """In the place of a run's data: what prepares images, ImageNet's mean and std."""

    def __init__(self, photos: Photos):
        self._photos = photos

    def photos(self) -> Photos:
        return self._photos


def _read(where: str | Path) -> dict[str, Tensor]:
    path = Path(where).expanduser()
    if path.is_dir():
        files = _weights_in(path)
        if len(files) != 1:
            raise UserError(
                "this folder does not hold one file of weights", given=[each.name for each in files] or path
            )
        path = files[0]
    elif not path.is_file():
        path = _from_hub(str(where))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Nothing but tensors and plain values is ever unpickled: a file from elsewhere may hold code. Its authors keep the
        # arguments of their script, a Namespace of words and numbers, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        SafetensorError,
        UnpicklingError,
    ) as error:
        raise UserError(
            f"cannot read the weights in {path}: cut off, or more than plain values (none of it was run)",
            given=str(error).split("\n")[0][:200], do="fetch the file again",
        ) from error  # fmt: skip
    return strip_wrapping(found) if isinstance(found, dict) else {}


def _weights_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix in SUFFIXES and each.is_file())


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kinds = [cfg.default for cfg in default_cfgs.values() if cfg.default.hf_hub_id]
    known = {
        each.hf_hub_id: each.hf_hub_filename for each in reversed(kinds)
    }  # of one name the first: not finetuned further
    if name not in known:
        raise UserError("there are no such weights", given=name, allowed=["a .pth or .safetensors file", *known])
    try:
        return Path(hf_hub_download(name, known[name]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot fetch {name} from the hub", given=str(error).split("\n")[0][:200],
            allowed="a network, or a file", do=f"without a network: copy {known[name]} here and give its path",
        ) from error  # fmt: skip


def _check(weights: Mapping[str, Tensor], model: nn.Module, where: str | Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differ = [name for name in {**own, **found} if own.get(name) != found.get(name)]
    if differ:
        raise UserError(
            f"the weights in {where} are not those of a Vim as its authors publish it",
            given="; ".join(f"{name}: {found.get(name, 'missing')}, needs {own.get(name, 'nothing')}" for name in differ[:4]),
        )  # fmt: skip


def _names(path: Path, number: int) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class names: {error}", given=f"classes={path}") from error
    names = [each.strip() for each in names if each.strip()]
    if len(names) != number:
        raise UserError(
            "not as many names as classes", given=f"{len(names)} in {path}", allowed=f"{number}, one a line"
        )
    return names
