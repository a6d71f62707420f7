"""What a data set says to a network: channels, classes, sizes, and the stages that a patch allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ....core.errors import UserError

Sizes = tuple[int, ...]


class Described(NamedTuple):
    """channels, classes: of images and answers. patch_size: voxels along each axis. kernels, strides: of each stage."""

    channels: int
    classes: int
    patch_size: Sizes
    kernels: list[Sizes]
    strides: list[Sizes]


def described(describe: Mapping, axes: Sequence[int] = (2, 3)) -> Described:
    """What a network is built from.

    Args:
        describe: a data set's description.
        axes: how many axes the network can have.

    Raises:
        UserError: images of another number of axes, or data that are not for segmentation.
    """
    if "patch_size" not in describe:
        raise UserError(
            "this network segments images", given=f"data={describe.get('name')}", do="data=synthetic_volumes"
        )
    patch = tuple(describe["patch_size"])
    if len(patch) not in axes:
        raise UserError(
            f"this network segments images of {' or '.join(map(str, axes))} axes", given=f"{len(patch)} axes",
            do="data=synthetic_volumes data.axes=" + str(axes[0]),
        )  # fmt: skip
    kernels, strides = ([tuple(each) for each in describe[name]] for name in ("kernels", "strides"))
    return Described(describe["channels"], describe["num_classes"], patch, kernels, strides)


class Classes(NamedTuple):
    """channels, classes: of images and answers. image_size: voxels along each axis."""

    channels: int
    classes: int
    image_size: Sizes


def classified(describe: Mapping, axes: Sequence[int] = (2, 3)) -> Classes:
    """What a network is built from that names the class of a whole image.

    Args:
        describe: a data set's description.
        axes: how many axes the network can have.

    Raises:
        UserError: images of another number of axes, or data that have no class for each image.
    """
    if describe.get("task") != "classification":
        raise UserError(
            "this network names the class of a whole image", given=f"data={describe.get('name')}",
            do="data=synthetic_classes",
        )  # fmt: skip
    sizes = tuple(describe["image_size"])
    if len(sizes) not in axes:
        raise UserError(
            f"this network classifies images of {' or '.join(map(str, axes))} axes", given=f"{len(sizes)} axes",
            do="data=synthetic_classes data.axes=" + str(axes[0]),
        )  # fmt: skip
    return Classes(describe["channels"], describe["num_classes"], sizes)


def stages_of(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Sizes]:
    """The sizes of each stage's map, where each stage divides those before it by its strides, rounding up."""
    maps, sizes = [], tuple(patch_size)
    for stride in strides:
        sizes = tuple(-(-size // step) for size, step in zip(sizes, stride, strict=True))
        maps.append(sizes)
    return maps
