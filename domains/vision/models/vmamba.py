"""VMamba (arXiv 2401.10166): stages of SS2D mixers, which scan the grid of patches in four directions.

Its first version ("v0": gated mixers with 16 states, no MLP) and the one that was published last ("v05_noz": no gate, one state,
an MLP a block). Parameter names are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from ....core.grid_blocks import GridBlock, PatchMerging
from ....core.mixers.ss2d import SS2D
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, Weight, checked
from ....core.scans import Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride, with_names
from .position import strip_wrapping
from .registration import Variant, register
from .stems import convolved_downsample, overlapping_stem, patch_stem

V0 = {"version": "v0", "d_state": 16, "expand": 2, "mlp_ratio": 0}
SIZES = {
    "micro": {"dims": (32, 64), "depths": (1, 1)},
    "tiny": {"dims": 96, "depths": (2, 2, 8, 2)},
    "tiny_s2l5": {"dims": 96, "depths": (2, 2, 5, 2), "expand": 2},
    "small": {"dims": 96, "depths": (2, 2, 15, 2), "expand": 2},
    "small_s1l20": {"dims": 96, "depths": (2, 2, 20, 2)},
    "base": {"dims": 128, "depths": (2, 2, 15, 2), "expand": 2},
    "base_s1l20": {"dims": 128, "depths": (2, 2, 20, 2)},
    "tiny_v0": {"dims": 96, "depths": (2, 2, 9, 2), **V0},
    "small_v0": {"dims": 96, "depths": (2, 2, 27, 2), **V0},
    "base_v0": {"dims": 128, "depths": (2, 2, 27, 2), **V0},
}


class VMamba(Hierarchical):
    """VMamba.

    Args:
        img_size: side of the images in pixels, or (height, width), that its costs are counted for; it takes images of any size.
        in_chans, num_classes: channels of the images; outputs of the head (0: no head).
        global_pool: "avg" or "" (the map itself goes to the head).
        stride: pixels of a token of the first stage, each way: 4, 2 or 1; None: what suits the image size.
        dims: channels of each stage, or of the first, each further one having twice as many. depths: blocks of each stage.
        d_state, d_conv, expand, backend: the mixers' (core.mixers.ss2d.SS2D).
        mlp_ratio: inner channels of the blocks' MLPs per channel; 0: none.
        version: "v05_noz" (no gate; convolutions overlap between stages) or "v0" (gate; patches are merged).
        scan: a scan mode or Scan; block i walks scan.layer(i); or a Scan for each block. scan_parameters: the mode's parameters.
        mixer: called as mixer(channels, scan=..., **options), other than SS2D.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the blocks.
    """

    norm_name, head_name = "classifier.norm", "classifier.head"

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        stride: Literal[4, 2, 1] | None = None,
        dims: Size | tuple[Size, ...] = 96,
        depths: tuple[Depth, ...] = (2, 2, 8, 2),
        d_state: Size = 1,
        d_conv: Size | None = None,
        expand: Positive = 1,
        mlp_ratio: Weight = 4,
        version: Literal["v05_noz", "v0"] = "v05_noz",
        scan: str | Scan | Sequence[Scan] = "cross",
        scan_parameters: dict | None = None,
        mixer: Callable[..., nn.Module] = SS2D,
        drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory, first = {"device": device, "dtype": dtype}, version == "v0"
        img_size = both_sides(img_size)
        stride = suitable_stride(img_size) if stride is None else stride
        widths = [dims * 2**stage for stage in range(len(depths))] if isinstance(dims, int) else list(dims)
        scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        scans = [scan.layer(number) for number in range(sum(depths))] if isinstance(scan, Scan) else scan
        self.scan = scan if isinstance(scan, Scan) else scan[0]
        self.patch_embed = (patch_stem if first else overlapping_stem)(in_chans, widths[0], stride, **factory)
        mixing = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "gate": first, "conv_bias": first}
        mixing |= {"backend": backend, **factory}

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            width = widths[stage]
            norm, op = nn.LayerNorm(width, **factory), mixer(width, scan=scans[number], **mixing)
            more = (nn.LayerNorm(width, **factory), Mlp(width, int(mlp_ratio * width), **factory)) if mlp_ratio else ()
            return GridBlock(norm, op, *more, drop_path=drop_path)

        make = PatchMerging if first else convolved_downsample
        self.layers = make_stages(depths, widths, block, make, drop_path_rate, factory)
        self.classifier = nn.ModuleDict({"norm": nn.LayerNorm(widths[-1], **factory), "head": nn.Identity()})
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)


RENAMED = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
MERGING = ((r"\.downsample\.1\.", ".downsample.norm."), (r"\.downsample\.2\.", ".downsample.reduction."))


def checkpoint_filter_fn(state_dict: Mapping, model: VMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, under the names of today; those of the first release were others."""
    state, rules = strip_wrapping(state_dict), RENAMED
    if any(isinstance(module, PatchMerging) for module in model.modules()):
        rules = (*rules, *MERGING)
    return with_names(state, rules)


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "cross",
    size: Literal[
        "micro", "tiny", "tiny_s2l5", "small", "small_s1l20", "base", "base_s1l20", "tiny_v0", "small_v0", "base_v0"
    ]
    | None = None,
    stride: Literal[4, 2, 1] | None = None,
    drop_path_rate: Rate = 0.0,
    d_state: Size | None = None,
    expand: Positive | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> VMamba:
    """A VMamba for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan: the scan of its blocks.
        size: a size of SIZES; None: what the data set asks for.
        stride: pixels of a token; None: what suits the image size.
        d_state, expand: other than the size's.
    """
    chosen = {"d_state": d_state, "expand": expand}
    return VMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, backend=backend,
        **{**size_for(describe, size, SIZES), **{key: value for key, value in chosen.items() if value is not None}},
    )  # fmt: skip


RELEASE = "https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/"


def _weights(file: str) -> dict:
    return {"in1k": {"url": RELEASE + file}}


register(
    VMamba,
    {
        "vmamba_micro": Variant("A small VMamba for images of 8 to 64 pixels.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        "vmamba_tiny": Variant(
            "VMamba-T (s1l8): 30.2 million parameters, ImageNet-1k 82.6%.", SIZES["tiny"],
            _weights("vssm1_tiny_0230s_ckpt_epoch_264.pth"),
        ),
        "vmamba_tiny_s2l5": Variant("VMamba-T (s2l5): 30.7 million parameters, ImageNet-1k 82.5%.", SIZES["tiny_s2l5"]),
        "vmamba_small": Variant(
            "VMamba-S (s2l15): 50.1 million parameters, ImageNet-1k 83.6%.", SIZES["small"],
            _weights("vssm_small_0229_ckpt_epoch_222.pth"),
        ),
        "vmamba_small_s1l20": Variant("VMamba-S (s1l20): 49.0 million parameters, ImageNet-1k 83.3%.", SIZES["small_s1l20"]),
        "vmamba_base": Variant(
            "VMamba-B (s2l15): 88.6 million parameters, ImageNet-1k 83.9%.", SIZES["base"],
            _weights("vssm_base_0229_ckpt_epoch_237.pth"),
        ),
        "vmamba_base_s1l20": Variant("VMamba-B (s1l20): 86.6 million parameters, ImageNet-1k 83.8%.", SIZES["base_s1l20"]),
        "vmamba_tiny_v0": Variant("The first VMamba-T: 22.9 million parameters, ImageNet-1k 82.2%.", SIZES["tiny_v0"]),
        "vmamba_small_v0": Variant("The first VMamba-S: 44.4 million parameters, ImageNet-1k 83.5%.", SIZES["small_v0"]),
        "vmamba_base_v0": Variant("The first VMamba-B: 76.3 million parameters, ImageNet-1k 83.7%.", SIZES["base_v0"]),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.0", classifier="classifier.head", license="mit",
    origin_url="https://github.com/MzeroMiko/VMamba", paper_ids="arXiv:2401.10166",
)  # fmt: skip
