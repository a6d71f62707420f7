"""From a data set's description and a size's name to a language model or a text classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from ....core.errors import UserError, check_choice
from ....core.ranges import Count, Depth, Rate, Size, Weight, checked
from ....core.scans import Scan
from ....core.scans import get as get_scan
from .classifier import TextClassifier
from .language_model import LanguageModel

SizeName = Literal["micro", "130m", "370m", "790m", "1.4b", "2.8b"]
# Mamba's published sizes (arXiv 2312.00752, table 12), and one that a CPU trains in minutes.
SIZES: dict[SizeName, dict[str, int]] = {
    "micro": {"d_model": 128, "n_layer": 4},
    "130m": {"d_model": 768, "n_layer": 24},
    "370m": {"d_model": 1024, "n_layer": 48},
    "790m": {"d_model": 1536, "n_layer": 48},
    "1.4b": {"d_model": 2048, "n_layer": 48},
    "2.8b": {"d_model": 2560, "n_layer": 64},
}
# Heads and states that fit 256 inner channels.
MICRO_OPTIONS = {"mamba": {}, "mamba2": {"d_state": 64, "headdim": 32}, "mamba3": {"d_state": 64, "headdim": 32}}
HEAD_CHANNELS = {"micro": 32}


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan | None = None,
    mixer: Literal["mamba", "mamba2", "mamba3", "s4d"] = "mamba",
    size: SizeName | None = None,
    d_model: Size | None = None,
    n_layer: Depth | None = None,
    mixer_options: Mapping[str, Any] | None = None,
    attention_every: Count = 0,
    attention_options: Mapping[str, Any] | None = None,
    mlp_ratio: Weight = 0.0,
    experts: Count = 0,
    experts_every: Size = 1,
    experts_options: Mapping[str, Any] | None = None,
    tie_embeddings: bool = True,
    pad_vocab_size_multiple: Size = 8,
    pool: Literal["mean", "last"] = "mean",
    drop_rate: Rate = 0.0,
    checkpointing: bool = False,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> nn.Module:
    """A language model, or for a data set whose task is classification a text classifier.

    Args:
        describe: the data set's own description: vocab_size, length, task, num_classes, model_size.
        scan: the scan of its mixers; a language model can only read forwards.
        size: a name in SIZES; None: what the data set asks for.
        d_model, n_layer: other than the size's.
        mixer, mixer_options, experts, experts_every, experts_options, tie_embeddings, pad_vocab_size_multiple: LanguageModel's.
        attention_every: one layer in so many is attention, the last of each group; 0: none.
        attention_options: core.mixers.attention.Attention's; heads of 64 channels (micro: 32) unless num_heads is given.
        mlp_ratio: channels of the MLP, or of an expert, a channel of the model; 0: no MLP.
        pool, drop_rate: the classifier's.
        checkpointing: compute the layers again in the backward pass: less memory, more time.

    Raises:
        UserError: an unknown size, a scan that reads backwards in a language model.
    """
    size = describe.get("model_size", "micro") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    classifies = describe.get("task") == "classification"
    scan = get_scan(scan) if isinstance(scan, str) else scan or get_scan("raster")
    if not classifies and scan != get_scan("raster"):
        raise UserError("a language model reads forwards", given=f"scan={scan.name}", allowed="scan=raster")
    width = SIZES[size]["d_model"] if d_model is None else d_model
    layers = SIZES[size]["n_layer"] if n_layer is None else n_layer
    options = {**(MICRO_OPTIONS.get(mixer, {}) if size == "micro" else {}), **(mixer_options or {}), "scan": scan}
    if scan.paths(1) > 1:
        options.setdefault("merge", "mean")
    attention = list(range(attention_every - 1, layers, attention_every)) if attention_every else []
    heads = {"num_heads": max(1, width // HEAD_CHANNELS.get(size, 64)), "causal": not classifies}
    model = LanguageModel(
        int(describe["vocab_size"]), width, layers, mixer, options, attention, {**heads, **(attention_options or {})},
        int(mlp_ratio * width), experts, experts_options, experts_every, tie_embeddings=tie_embeddings,
        pad_vocab_size_multiple=pad_vocab_size_multiple, length=describe.get("length"), backend=backend,
    )  # fmt: skip
    if classifies:
        model = TextClassifier(model, describe["num_classes"], pool, drop_rate)
    model.set_grad_checkpointing(checkpointing)
    return model
