"""Vim among timm's models: `timm.create_model("vim_tiny_patch16_224")`, the published weights and where they are."""

from __future__ import annotations

from .registration import Variant, register
from .vim import SIZES, Vim, checkpoint_filter_fn


def _weights(size: str, **files: str) -> dict[str, dict[str, str]]:
    return {tag: {"hf_hub_id": f"hustvl/Vim-{size}-midclstok", "hf_hub_filename": file} for tag, file in files.items()}


VARIANTS = {
    "vim_micro": Variant(
        "A small Vim for images of 8 to 64 pixels; the patch size follows the image size.",
        {**SIZES["micro"], "patch_size": None}, more={"input_size": (3, 32, 32)},
    ),
    "vim_tiny_patch16_224": Variant(
        "Vim-Ti: 7.1 million parameters, ImageNet-1k 76.1% (paper).",
        SIZES["tiny"], _weights("tiny", midclstok_in1k="vim_t_midclstok_76p1acc.pth"),
    ),
    "vim_small_patch16_224": Variant(
        "Vim-S: 25.8 million parameters, ImageNet-1k 80.5% (published checkpoint).",
        SIZES["small"], _weights("small", midclstok_in1k="vim_s_midclstok_80p5acc.pth"),
    ),
    "vim_base_patch16_224": Variant(
        "Vim-B: 97.6 million parameters, ImageNet-1k 81.9% (published checkpoint).",
        SIZES["base"], _weights("base", midclstok_in1k="vim_b_midclstok_81p9acc.pth"),
    ),
    "vim_tiny_patch16_stride8_224": Variant(
        "Vim-Ti+: patches overlap by half, finetuned; ImageNet-1k 78.3% (published checkpoint).",
        {**SIZES["tiny"], "stride": 8}, _weights("tiny", midclstok_ft_in1k="vim_t_midclstok_ft_78p3acc.pth"),
    ),
    "vim_small_patch16_stride8_224": Variant(
        "Vim-S+: patches overlap by half, finetuned; ImageNet-1k 81.6% (published checkpoint).",
        {**SIZES["small"], "stride": 8}, _weights("small", midclstok_ft_in1k="vim_s_midclstok_ft_81p6acc.pth"),
    ),
}  # fmt: skip
default_cfgs = register(
    Vim, VARIANTS, checkpoint_filter_fn, 3, fixed_input_size=True, first_conv="patch_embed.proj", classifier="head",
    license="apache-2.0", origin_url="https://github.com/hustvl/Vim", paper_ids="arXiv:2401.09417",
)  # fmt: skip
