"""Weights in RecBole's layout, which the authors of Mamba4Rec and SIGMA train with too: a .pth of its trainer, or tensors alone.

run = load("saved/Mamba4Rec-Nov-26-2026.pth", items="items.txt")
weights = read_weights("saved/SASRec.pth", model)      for init=, a model of the same items
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...core.errors import UserError
from ...data.loading import Loading
from ...data.recommendation.catalogue import Catalogue
from ...data.recommendation.histories import GROUPS, Histories, Log
from ..trained import Trained
from ..weight_files import names_in, read
from .models import gru4rec, mamba4rec, sasrec, sigma
from .next_item import NextItem

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
TABLE = "item_embedding.weight"
LENGTH = 50  # RecBole's MAX_ITEM_LIST_LENGTH, where neither positions nor settings tell
PADDING = "[PAD]"


def is_published(where: str) -> bool:
    """Whether this, which is no run, is a file of weights with a table of items."""
    path = Path(where).expanduser()
    return path.is_file() and path.suffix in SUFFIXES and TABLE.encode() in names_in(path)


def read_weights(where: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of a file, whose names are those here; what does not fit `model` is for the caller to say.

    Raises:
        UserError: the file cannot be read, or holds no recommender's weights.
    """
    return _read(where)[0]


def load(where: str | Path, device: str = "cpu", items: str | None = None) -> Trained:
    """A model with the weights of a file, in the form that they were trained in.

    Args:
        where: the file.
        device: of the model.
        items: a file of the items' ids, one a line, in the order of RecBole's numbers (its [PAD] may stand first); None: the ids
            are these numbers.

    Raises:
        UserError: weights of another model, other ids than items.
    """
    weights, settings = _read(where)
    ids = _ids(items, len(weights[TABLE]) - 1)
    model = _model(weights, settings, where, len(ids))
    model.load_state_dict(weights)
    catalogue = Catalogue(ids, np.zeros(len(ids) + 1, np.int64))
    describe = {
        "name": str(where), "items": len(ids), "length": model.length, "catalogue": catalogue, "groups": {},
        "group_names": list(GROUPS),
    }  # fmt: skip
    data = _Events(str(where), Loading(), model.length)
    data.catalogue = catalogue
    task = NextItem(model, describe).to(device).eval()
    return Trained(task.model, task, data, describe, device, Path())


class _Events(Histories):
    """Events that come from a table beside the model: a published one has none of its own."""

    def load(self) -> Log:
        raise UserError("a published model has no users of its own", given=self.name, do="input=events.csv")


def _model(weights: Mapping[str, Tensor], settings: Mapping[str, Any], where: str | Path, items: int) -> nn.Module:
    """The model whose names these are, of the sizes that their shapes say."""
    length = int(settings.get("MAX_ITEM_LIST_LENGTH", LENGTH))
    channels = weights[TABLE].shape[1]
    if found := _matches(re.compile(r"mamba_layers\.(\d+)\.(mamba|gmamba\.mamba)\.A_log"), weights):
        inner, states = weights[found[0][0]].shape
        taps = weights[found[0][0].replace("A_log", "conv1d.weight")].shape[-1]
        sizes = {"d_state": states, "d_conv": taps, "expand": inner / channels, "compat": "published"}
        make = sigma.SIGMA if found[0][2] != "mamba" else mamba4rec.Mamba4Rec
        return make(items, length, channels, len(found), **sizes)
    if (
        found := _matches(re.compile(r"trm_encoder\.layer\.(\d+)\.(multi_head_attention)\.query\.weight"), weights)
    ) and ("output_bias" not in weights):
        width = weights["trm_encoder.layer.0.feed_forward.dense_1.weight"].shape[0]
        heads, kind = int(settings.get("n_heads", 2)), settings.get("hidden_act", "gelu")
        positions = len(weights["position_embedding.weight"])
        return sasrec.SASRec(items, positions, channels, len(found), heads, width, activation=kind)
    if found := _matches(re.compile(r"gru_layers\.weight_hh_l(\d+)()"), weights):
        return gru4rec.GRU4Rec(items, length, channels, weights[found[0][0]].shape[1], len(found))
    raise UserError(
        "these are the weights of none of the models known here", given=f"{where}: {', '.join(list(weights)[:3])}, ...",
        allowed="Mamba4Rec, SIGMA, SASRec, GRU4Rec, in RecBole's names",
    )  # fmt: skip


def _matches(pattern: re.Pattern, weights: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """Names that fit, each with what its two groups say."""
    return [(name, *found.groups()) for name in weights if (found := pattern.fullmatch(name))]


def _ids(items: str | None, count: int) -> list[str]:
    if items is None:
        return [str(number) for number in range(1, count + 1)]
    path = Path(items).expanduser()
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}", given=f"items={items}") from error
    ids = ids[1:] if ids[:1] == [PADDING] else ids
    if len(ids) != count or len(set(ids)) != count:
        raise UserError(
            f"{path} does not name the model's items", given=f"{len(ids):,} lines, {len(set(ids)):,} unlike",
            allowed=f"{count:,} ids, one a line",
        )  # fmt: skip
    return ids


class _Setting:
    """What stands in a file for an object of RecBole's: its values, none of its code."""

    def __init__(self, *values: Any):
        self.values = values


def _read(where: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a file, and of RecBole's settings those that are in it."""
    path = Path(where).expanduser()
    # RecBole's own classes, which settings are made of, are taken for empty ones.
    found = read(path, lambda names: [(_Setting, name) for name in names if name.startswith("recbole.")])
    settings = found.get("config") if isinstance(found, dict) else None
    weights = found.get("state_dict", found) if isinstance(found, dict) else {}
    weights = {name: each for name, each in weights.items() if isinstance(each, Tensor)}
    if TABLE not in weights:
        raise UserError("these are no recommender's weights", given=f"{path}: no {TABLE}", allowed="RecBole's names")
    values = getattr(settings, "final_config_dict", settings)
    return weights, dict(values) if isinstance(values, Mapping) else {}
