"""Conv-TasNet (arXiv 1809.07454), torchaudio's: the baseline of separation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.ranges import Size, checked
from .blocks import sized
from .tasnet import sources_of

SIZES = {
    "micro": {"kernel": 32, "features": 64, "channels": 32, "hidden": 64, "layers": 4, "stacks": 2},
    "xs": {"kernel": 16, "features": 256, "channels": 96, "hidden": 256, "layers": 7, "stacks": 3},
    "base": {"kernel": 16, "features": 512, "channels": 128, "hidden": 512, "layers": 8, "stacks": 3},
}


class ConvTasNet(nn.Module):
    """Masks over a learned basis from dilated convolutions, which see both ways.

    Args:
        sources: speakers. kernel, features: of the basis. channels, hidden: between and within the blocks of convolutions.
        layers, stacks: convolutions of a stack, each dilated twice as far as the one before, and stacks.
        samples: of the recordings it is meant for.
    """

    def __init__(
        self,
        sources: int,
        kernel: int,
        features: int,
        channels: int,
        hidden: int,
        layers: int,
        stacks: int,
        samples: int,
    ):
        super().__init__()
        with torch.device("cpu"):  # tensors that the import makes are real where the network's are not
            from torchaudio.models import ConvTasNet as Network

        self.sources, self.samples = sources, samples
        sizes = {"msk_num_feats": channels, "msk_num_hidden_feats": hidden, "msk_num_layers": layers}
        self.network = Network(sources, kernel, features, **sizes, msk_num_stacks=stacks, msk_activate="relu")

    def forward(self, mixture: Tensor) -> Tensor:
        """(batch, time) to (batch, sources, time)."""
        longer = F.pad(mixture, (0, max(0, self.network.enc_kernel_size - mixture.shape[1])))
        return self.network(longer[:, None])[..., : mixture.shape[1]]


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["micro", "xs", "base"] | None = None,
    channels: Size | None = None,
    hidden: Size | None = None,
    layers: Size | None = None,
    stacks: Size | None = None,
) -> ConvTasNet:
    """A Conv-TasNet for a data set.

    Args:
        describe: sources, samples and model_size of the data set.
        size: a row of SIZES; None: what the data set asks for. The others: other than the size's.
    """
    options = sized(
        SIZES,
        size or describe.get("model_size", "base"),
        channels=channels,
        hidden=hidden,
        layers=layers,
        stacks=stacks,
    )
    return ConvTasNet(**sources_of(describe), **options)
