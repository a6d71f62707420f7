"""An AST-like transformer over spectrogram patches (arXiv 2104.01778): timm's ViT, the baseline of tagging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Count, Depth, Size, checked
from .aum import classes_of, front_of
from .blocks import sized

SIZES = {
    "micro": {"embed_dim": 64, "depth": 4, "heads": 4, "mels": 64, "patch": 8},
    "tiny": {"embed_dim": 192, "depth": 12, "heads": 3, "mels": 128, "patch": 16},
    "small": {"embed_dim": 384, "depth": 12, "heads": 6, "mels": 128, "patch": 16},
    "base": {"embed_dim": 768, "depth": 12, "heads": 12, "mels": 128, "patch": 16},
}


class AST(nn.Module):
    """A ViT of one channel over log-mel spectrograms.

    Args:
        num_classes: outputs. frames, mels: of a spectrogram; frames are filled up to whole patches.
        patch, patch_frames: mels and frames of a patch; None: as many frames as mels.
        embed_dim, depth, heads: of the transformer. front: makes spectrograms (batch, frames, mels) of sounds (batch, time).
    """

    def __init__(
        self,
        num_classes: int,
        frames: int,
        mels: int,
        patch: int,
        embed_dim: int,
        depth: int,
        heads: int,
        front: nn.Module,
        patch_frames: int | None = None,
    ):
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        if mels % patch or embed_dim % heads:
            given = f"mels={mels}, patch={patch}, embed_dim={embed_dim}, heads={heads}"
            raise UserError("patches share the mels out, heads the channels", given=given)
        patch_frames = patch_frames or patch
        self.frames = -(-frames // patch_frames) * patch_frames
        shape = (patch, patch_frames)
        self.network = VisionTransformer(
            (mels, self.frames), shape, 1, num_classes, embed_dim=embed_dim, depth=depth, num_heads=heads
        )
        self.front = front

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.network.patch_embed.num_patches + 1

    def forward(self, x: Tensor) -> Tensor:
        """Sounds (batch, time) to class scores (batch, num_classes)."""
        levels = self.front(x).to(self.network.head.weight.dtype)[:, : self.frames]
        levels = F.pad(levels, (0, 0, 0, self.frames - levels.shape[1]))
        return self.network(levels.transpose(1, 2)[:, None])

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.network.head


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    embed_dim: Size | None = None,
    depth: Depth | None = None,
    heads: Size | None = None,
    mels: Size | None = None,
    patch: Size | None = None,
    patch_frames: Size | None = None,
    frequency_mask: Count = 8,
    time_mask: Count = 10,
) -> AST:
    """A transformer for a data set.

    Args:
        describe: classes (or num_classes), samples, rate and model_size of the data set.
        size: a row of SIZES; None: what the data set asks for.
        embed_dim, depth, heads, mels, patch, patch_frames: other than the size's.
        frequency_mask, time_mask: the most mels and frames that are hidden in training (SpecAugment); 0: none.
    """
    chosen = {"embed_dim": embed_dim, "depth": depth, "heads": heads, "mels": mels, "patch": patch}
    options = sized(SIZES, size or describe.get("model_size", "base"), **chosen, patch_frames=patch_frames)
    classes = classes_of(describe)
    front, frames = front_of(describe, options["mels"], frequency_mask, time_mask)
    return AST(classes, frames, **options, front=front)
