"""Vim among timm's models: `timm.create_model("vim_tiny_patch16_224")`, the published weights and where they are."""

from __future__ import annotations

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from .vim import SIZES, Vim, checkpoint_filter_fn


def _cfg(repository: str | None = None, file: str | None = None, **kwargs) -> dict:
    return {
        "hf_hub_id": repository and f"hustvl/{repository}",
        "hf_hub_filename": file,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        "origin_url": "https://github.com/hustvl/Vim",
        "paper_ids": "arXiv:2401.09417",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "vim_micro": _cfg(input_size=(3, 32, 32)),
        "vim_tiny_patch16_224.midclstok_in1k": _cfg("Vim-tiny-midclstok", "vim_t_midclstok_76p1acc.pth"),
        "vim_small_patch16_224.midclstok_in1k": _cfg("Vim-small-midclstok", "vim_s_midclstok_80p5acc.pth"),
        "vim_base_patch16_224.midclstok_in1k": _cfg("Vim-base-midclstok", "vim_b_midclstok_81p9acc.pth"),
        "vim_tiny_patch16_stride8_224.midclstok_ft_in1k": _cfg("Vim-tiny-midclstok", "vim_t_midclstok_ft_78p3acc.pth"),
        "vim_small_patch16_stride8_224.midclstok_ft_in1k": _cfg(
            "Vim-small-midclstok", "vim_s_midclstok_ft_81p6acc.pth"
        ),
    }
)


def _create(variant: str, pretrained: bool, size: str, kwargs: dict, **preset) -> Vim:
    features = {"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"}
    return build_model_with_cfg(
        Vim, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=features,
        **{**SIZES[size], **preset, **kwargs},
    )  # fmt: skip


@register_model
def vim_micro(pretrained: bool = False, **kwargs) -> Vim:
    """A small Vim for images of 8 to 64 pixels; the patch size follows the image size."""
    return _create("vim_micro", pretrained, "micro", kwargs, patch_size=None)


@register_model
def vim_tiny_patch16_224(pretrained: bool = False, **kwargs) -> Vim:
    """Vim-Ti: 7.1 million parameters, ImageNet-1k 76.1% (paper)."""
    return _create("vim_tiny_patch16_224", pretrained, "tiny", kwargs)


@register_model
def vim_small_patch16_224(pretrained: bool = False, **kwargs) -> Vim:
    """Vim-S: 25.8 million parameters, ImageNet-1k 80.5% (published checkpoint)."""
    return _create("vim_small_patch16_224", pretrained, "small", kwargs)


@register_model
def vim_base_patch16_224(pretrained: bool = False, **kwargs) -> Vim:
    """Vim-B: 97.6 million parameters, ImageNet-1k 81.9% (published checkpoint)."""
    return _create("vim_base_patch16_224", pretrained, "base", kwargs)


@register_model
def vim_tiny_patch16_stride8_224(pretrained: bool = False, **kwargs) -> Vim:
    """Vim-Ti+: patches overlap by half, finetuned; ImageNet-1k 78.3% (published checkpoint)."""
    return _create("vim_tiny_patch16_stride8_224", pretrained, "tiny", kwargs, stride=8)


@register_model
def vim_small_patch16_stride8_224(pretrained: bool = False, **kwargs) -> Vim:
    """Vim-S+: patches overlap by half, finetuned; ImageNet-1k 81.6% (published checkpoint)."""
    return _create("vim_small_patch16_stride8_224", pretrained, "small", kwargs, stride=8)
