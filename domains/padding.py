"""Networks that halve their maps several times, on maps of any sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def filled_up(x: Tensor, multiple: int | Sequence[int]) -> Tensor:
    """(batch, channels, *sizes) with zeros at the end of each axis, so that every size is a multiple."""
    sizes = x.shape[2:]
    steps = (multiple,) * len(sizes) if isinstance(multiple, int) else tuple(multiple)
    missing = [-size % step for size, step in zip(sizes, steps, strict=True)]
    if not any(missing):
        return x
    return F.pad(x, [each for more in reversed(missing) for each in (0, more)])


def cropped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first voxels along each axis: (batch, channels, *sizes)."""
    return x[(..., *(slice(size) for size in sizes))]


class Baseline(nn.Module):
    """A network of MONAI on maps of any sizes: (batch, channels, *sizes) -> (batch, classes, *sizes).

    Args:
        network: MONAI's. multiple: what sizes it takes, along each axis; the maps are filled up with zeros.
    """

    grids = None

    def __init__(self, network: nn.Module, multiple: int | Sequence[int]):
        super().__init__()
        self.network, self.multiple = network, multiple

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        found, sizes = self.network(filled_up(x, self.multiple)), x.shape[2:]
        if found.dim() == x.dim() + 1:  # DynUNet's scales in training, all of them at full size
            return [cropped(each, sizes) for each in found.unbind(1)]
        return cropped(found, sizes)
