"""Models of this package among timm's: `timm.create_model("vim_tiny_patch16_224")`, and where their published weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

# What timm looks up when an entry point of this module is registered.
default_cfgs: dict[str, Any] = {}
# By timm's name, a model's class and arguments.
VARIANTS: dict[str, tuple[type[nn.Module], Mapping[str, Any]]] = {}
# What makes a published state dict one of a model's: (state_dict, model) -> state_dict, by the model's class.
FILTERS: dict[type[nn.Module], Callable] = {}
IMAGENET = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": None,
    "crop_pct": 0.875,  # 256 pixels, the middle 224, as DeiT's recipe and Swin's have it, by which these models are trained
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


@dataclass(frozen=True)
class Variant:
    """A name of timm's for a size of a model.

    Args:
        about: one line: parameters, published number.
        arguments: of the model's class.
        weights: tag -> where published weights are, in words of timm's configuration ("url", "hf_hub_id", "hf_hub_filename").
        more: what else the configuration says differently.
    """

    about: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def register(
    model: type[nn.Module],
    variants: Mapping[str, Variant],
    filter_fn: Callable,
    out_indices: int | tuple[int, ...],
    **usual,
) -> dict[str, Any]:
    """Make the variants known to timm, and return their configurations.

    Args:
        model: their class.
        filter_fn: makes a published state dict one of the model's: (state_dict, model) -> state_dict.
        out_indices: the stages (or how many of the last layers) whose features are given where none are named.
        usual: of the configurations of all of them: first_conv, classifier, license, origin_url, paper_ids ...
    """
    cfgs = {}
    for name, variant in variants.items():
        common = {**IMAGENET, **usual, **variant.more}
        cfgs |= {f"{name}.{tag}": {**common, **where} for tag, where in variant.weights.items()} or {name: common}
    made = generate_default_cfgs(cfgs)
    default_cfgs.update(made)
    FILTERS[model] = filter_fn
    for name, variant in variants.items():
        VARIANTS[name] = (model, variant.arguments)
        # The size of the configuration is the one that the model is made for.
        size = {"img_size": tuple(variant.more["input_size"][1:])} if "input_size" in variant.more else {}
        register_model(
            _entry(model, name, replace(variant, arguments={**size, **variant.arguments}), filter_fn, out_indices)
        )
    return made


def crop_of(model: type[nn.Module], arguments: Mapping[str, Any]) -> float:
    """The share of an image's smaller side that its authors test a model on, in the middle (timm's crop_pct).

    Args:
        model: the class.
        arguments: what it is called with; they tell the size.
    """
    for name, (kind, own) in VARIANTS.items():
        if kind is model and all(_plain(arguments[key]) == _plain(own[key]) for key in own.keys() & arguments.keys()):
            return default_cfgs[name].default.crop_pct
    return IMAGENET["crop_pct"]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _entry(model: type[nn.Module], name: str, variant: Variant, filter_fn: Callable, out_indices) -> Callable:
    def entry(pretrained: bool = False, **kwargs) -> nn.Module:
        if model.takes_any_size:
            kwargs.pop("dynamic_img_size", None)
        features = {"out_indices": kwargs.pop("out_indices", out_indices), "feature_cls": "getter"}
        return build_model_with_cfg(
            model,
            name,
            pretrained,
            pretrained_filter_fn=filter_fn,
            feature_cfg=features,
            **{**variant.arguments, **kwargs},
        )

    entry.__name__, entry.__qualname__, entry.__doc__ = name, name, variant.about
    return entry
