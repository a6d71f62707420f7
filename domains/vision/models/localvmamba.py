"""LocalVMamba (arXiv 2403.09338): the first VMamba with four of eight directions a block, windows among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from ....core.ranges import Depth, Rate, Size, checked
from ....core.scans import Scan
from .backbone import size_for
from .localmamba import LocalSS2D, scans_of, searched_directions
from .registration import Variant, register
from .vmamba import V0, VMamba
from .vmamba import checkpoint_filter_fn as vmamba_filter_fn

SIZES = {
    "micro": {"dims": (32, 64), "depths": (1, 1), "d_state": 4},
    "tiny": {"dims": 96, "depths": (2, 2, 9, 2)},
    "small": {"dims": 96, "depths": (2, 2, 27, 2)},
}


class LocalVMamba(VMamba):
    """LocalVMamba.

    Args:
        img_size, in_chans, num_classes and the rest of `options`: as of VMamba.
        dims, depths, d_state: as of VMamba.
        scan: a scan mode or Scan, for what is not said by `directions`.
        directions: for each block the names of its directions (localmamba.DIRECTIONS), as the search found them.
        compat: "published": grids are filled up to whole windows; None: windows are cut at the border.
    """

    def __init__(
        self, *arguments, dims: Size | tuple[Size, ...] = 96, depths: tuple[Depth, ...] = (2, 2, 9, 2), d_state: Size = 16,
        scan: str | Scan = "local_vim", directions: Sequence[Sequence[str]] | None = None,
        compat: Literal["published"] | None = None, **options,
    ):  # fmt: skip
        mixer = partial(LocalSS2D, padded=compat == "published")
        scans = scans_of(directions, scan, sum(depths))
        form = {**V0, "d_state": d_state, "scan": scans, "mixer": mixer, **options}
        super().__init__(*arguments, dims=dims, depths=depths, **form)


def checkpoint_filter_fn(state_dict: Mapping, model: LocalVMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it."""
    return vmamba_filter_fn(state_dict, model)


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "local_vim",
    size: Literal["micro", "tiny", "small"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    d_state: Size | None = None,
    drop_path_rate: Rate = 0.0,
    directions: list | Literal["searched"] | None = None,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> LocalVMamba:
    """A LocalVMamba for a data set; arguments as of VMamba's `build` and of LocalVMamba, directions as of LocalVim's `build`."""
    chosen = size_for(describe, size, SIZES) | ({} if d_state is None else {"d_state": d_state})
    if directions == "searched":
        directions = searched_directions("localvmamba", chosen["depths"])
    return LocalVMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, directions=directions, compat=compat, backend=backend, **chosen,
    )  # fmt: skip


register(
    LocalVMamba,
    {
        "localvmamba_micro": Variant("A small LocalVMamba.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        **{
            f"localvmamba_{size}": Variant(
                f"LocalVMamba-{size[0].upper()}: {count} million parameters, ImageNet-1k {accuracy}%.",
                {**SIZES[size], "compat": "published", "directions": searched_directions("localvmamba", SIZES[size]["depths"])},
            )
            for size, count, accuracy in (("tiny", 25.5, 82.7), ("small", 49.7, 83.7))
        },
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.0", classifier="classifier.head", license="apache-2.0",
    origin_url="https://github.com/hunto/LocalMamba", paper_ids="arXiv:2403.09338",
)  # fmt: skip
