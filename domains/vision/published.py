"""Published weights of image models: into those here that training begins with, and whole, as their authors published them.

run = load("vim_t_midclstok_76p1acc.pth")     or load("hustvl/Vim-tiny-midclstok"), from the hub
weights = read_weights("vim_t.pth", model)    for a model of other images or classes: positions resampled
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core.errors import UserError
from ...data.vision.photos import Photos
from ..trained import Trained
from ..weight_files import read
from .layouts import arguments_of
from .models.position import strip_wrapping
from .models.registration import FILTERS, IMAGENET, crop_of, default_cfgs

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".tar")
MUST_AGREE = ("num_classes", "channels")  # of what a model is of and what data say


def is_published(where: str) -> bool:
    """Whether this, which is no run, names published weights: a file, a folder that holds one, a name of their authors' on the hub,
    or timm's name of a model here whose weights are published."""
    path = Path(where).expanduser()
    if path.is_dir():
        return len(_weights_in(path)) == 1
    return path.suffix in SUFFIXES if path.is_file() else where in _addresses() or where.split("/")[0] in _owners()


def load(
    where: str | Path, device: str = "cpu", classes: str | Path | None = None, layout: str | None = None
) -> Trained:
    """A model with published weights, of the size and image size that they are of.

    Args:
        where: a file, a folder with one, or a name (see is_published).
        device: of the model.
        classes: a file of class names, one a line, in the order of the labels; None: classes are numbers.
        layout: which model they are of, as in `model=vmamba`; None: what names and shapes tell.

    Raises:
        UserError: there are no such weights, they are of no model here, or the names are not as many as the classes.
    """
    found = _read(where)
    kind, arguments = arguments_of(found, where, layout)
    model = kind(**arguments)
    weights = FILTERS[kind](found, model)
    _check(weights, model, where)
    model.load_state_dict(weights)
    names = None if classes is None else _names(Path(classes).expanduser(), model.num_classes)
    channels = arguments["in_chans"]
    mean, std = (
        [round(sum(each) / 3, 6)] if channels == 1 else list(each) for each in (IMAGENET["mean"], IMAGENET["std"])
    )
    describe = {
        "name": str(where), "channels": channels, "image_size": list(model.img_size),
        "num_classes": model.num_classes, "classes": names, "mean": mean, "std": std,
    }  # fmt: skip
    data = _Published(Photos(model.img_size, mean, std, crop=crop_of(kind, arguments)))
    return Trained(model.to(device).eval(), None, data, describe, device, Path())


def reading(run: Trained) -> dict[str, Any]:
    """The settings of data with which images are read as a model that `load` gave takes them, and as its authors test it."""
    told = {name: run.describe[name] for name in ("image_size", "channels", "mean", "std")}
    return {**told, "crop": run.data.photos().crop}


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
    name = next(name for name, each in own.items() if each.dim() >= 4)
    if name not in weights:
        given = f"{where} for {type(model).__name__}: no {name}"
        raise UserError("these are another model's weights", given=given, do="choose their model: model=<name>")
    if weights[name].shape[1] != own[name].shape[1]:
        from timm.models import adapt_input_conv

        flat = adapt_input_conv(own[name].shape[1], weights[name].flatten(2, -2))
        weights[name] = flat.reshape(*flat.shape[:2], *weights[name].shape[2:])
    return weights


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
        path = _fetched(str(where))
    # Authors keep the arguments of their script, a Namespace of words and numbers, beside the weights.
    found = read(path, lambda names: [argparse.Namespace])
    return strip_wrapping(found) if isinstance(found, dict) else {}


def _addresses() -> dict[str, object]:
    """Timm's configurations that say where weights are, by the names that mean them: of one name on the hub the first."""
    found = {}
    for name, cfg in default_cfgs.items():
        usual = cfg.default
        if usual.hf_hub_id:
            found.setdefault(usual.hf_hub_id, usual)
        if usual.hf_hub_id or usual.url:
            found |= {name: usual, **{f"{name}.{tag}": each for tag, each in cfg.cfgs.items()}}
    return found


def _owners() -> set[str]:
    return {name.split("/")[0] for name in _addresses() if "/" in name}


def _weights_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix in SUFFIXES and each.is_file())


def _fetched(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from timm.models._hub import download_cached_file

    known = _addresses()
    if name not in known:
        raise UserError("there are no such weights", given=name, allowed=["a .pth or .safetensors file", *known])
    usual = known[name]
    file = usual.hf_hub_filename or usual.url.rpartition("/")[2]
    try:
        if usual.hf_hub_id:
            return Path(hf_hub_download(usual.hf_hub_id, file))
        return Path(download_cached_file(usual.url, check_hash=False))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot fetch {name}", given=str(error).split("\n")[0][:200],
            allowed="a network, or a file", do=f"without a network: copy {file} here and give its path",
        ) from error  # fmt: skip


def _check(weights: Mapping[str, Tensor], model: nn.Module, where: str | Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differ = [name for name in {**own, **found} if own.get(name) != found.get(name)]
    if differ:
        raise UserError(
            f"the weights in {where} are not those of a {type(model).__name__} as its authors publish it",
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
