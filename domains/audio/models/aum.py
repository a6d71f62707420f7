"""Audio Mamba (AuM, arXiv 2406.03344): Vision Mamba over patches of a log-mel spectrogram, a class token in their middle.

Names are those of the authors' code. Its three forms are scans and parameters of core's mixer: Fo-Fo is scan=raster, Fo-Bi
parameters=decay (the published base model), Bi-Bi parameters=separate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.initialisation import scale_output_projections
from ....core.mixers import Mamba
from ....core.mixers.extra_tokens import with_extra
from ....core.ranges import Count, Depth, Size, checked
from ....core.scans import Grid, Scan
from ....core.stack import ResidualBlock, final_norm, make_norm, run_stack
from .blocks import Backend, as_scan, sized
from .log_mel import LogMel

SIZES = {
    "micro": {"embed_dim": 64, "depth": 4, "mels": 64, "patch": 8},
    "tiny": {"embed_dim": 192, "depth": 24, "mels": 128, "patch": 16},
    "small": {"embed_dim": 384, "depth": 24, "mels": 128, "patch": 16},
    "base": {"embed_dim": 768, "depth": 24, "mels": 128, "patch": 16},
}
Parameters = Literal["separate", "shared", "decay"]
Place = Literal["middle", "front"]
Pool = Literal["token", "mean"]


class Patches(nn.Module):
    """Spectrograms (batch, frames, mels) to tokens (batch, rows * columns, channels), row by row of frequencies."""

    def __init__(self, channels: int, patch: tuple[int, int]):
        super().__init__()
        self.proj = nn.Conv2d(1, channels, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2)[:, None]).flatten(2).transpose(1, 2)


class Positions(nn.Module):
    """A learned vector for the class token and for each patch."""

    def __init__(self, patches: int, channels: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, channels))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)


class AuM(nn.Module):
    """AuM over any scan of the core.

    Args:
        num_classes: outputs.
        frames, mels: of a spectrogram; frames are filled up to whole patches.
        patch: of so many mels. patch_frames: of so many frames; None: as many. Strips, all mels of two frames, are what AST
            (arXiv 2104.01778) found best where nothing was learned before.
        embed_dim, depth: width and layers.
        parameters: of the mixers ("decay": the paper's Fo-Bi, whose paths share all but their decays and are added up).
        scan: the way over frequency and time. d_state: of the mixers. backend: of the operators.
        class_token: where it stands. pool: the class is said of it, or of the mean over all other tokens.
        norm_twice: normalise the last tokens a second time, as SSAMBA's code does (arXiv 2405.11831; its class token is in front).
        front: what makes spectrograms (batch, frames, mels) of sounds (batch, time); None: it is given spectrograms.
    """

    @checked
    def __init__(
        self,
        num_classes: Size = 35,
        frames: Size = 128,
        mels: Size = 128,
        patch: Size = 16,
        embed_dim: Size = 192,
        depth: Depth = 24,
        parameters: Parameters = "separate",
        scan: str | Scan = "bidirectional",
        d_state: Size = 16,
        class_token: Place = "middle",
        pool: Pool = "token",
        norm_twice: bool = False,
        patch_frames: Size | None = None,
        backend: Backend = "auto",
        front: nn.Module | None = None,
    ):
        super().__init__()
        if mels % patch:
            raise UserError("patches share the mels out", given=f"mels={mels}, patch={patch}")
        scan = as_scan(scan)
        patch_frames = patch_frames or patch
        self.frames = math.ceil(frames / patch_frames) * patch_frames
        self.grid = Grid.with_class_token((mels // patch, self.frames // patch_frames), class_token)
        self.pool, self.norm_twice = pool, norm_twice
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.patch_embed = Patches(embed_dim, (patch, patch_frames))
        self.pos_embed = Positions(self.grid.length - 1, embed_dim)
        merge = "mean" if parameters != "decay" and not scan.disjoint(2) else "sum"
        mixing = {"axes": 2, "parameters": parameters, "merge": merge, "d_state": d_state, "backend": backend}
        self.layers = nn.ModuleList(
            ResidualBlock(Mamba(embed_dim, scan=scan.layer(index), **mixing), make_norm("rms", embed_dim))
            for index in range(depth)
        )
        self.norm_f, self.head = make_norm("rms", embed_dim), nn.Linear(embed_dim, num_classes)
        scale_output_projections(self, depth)
        self.front = front

    @property
    def grids(self) -> tuple[Grid]:
        """Mels and frames in patches, and the class token."""
        return (self.grid,)

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.grid.length

    def forward(self, x: Tensor) -> Tensor:
        """Sounds (batch, time), or spectrograms (batch, frames, mels), to class scores (batch, num_classes)."""
        tokens, place = self.features(x), self.grid.extra[0]
        if self.pool == "token":
            return self.head(tokens[:, place])
        return self.head(torch.cat([tokens[:, :place], tokens[:, place + 1 :]], 1).mean(1))

    def features(self, x: Tensor) -> Tensor:
        """The normalised tokens, (batch, tokens, embed_dim), the class token among them."""
        if x.dim() == 2:
            x = self.front(x).to(self.head.weight.dtype)
        return self.encode(self.patch_embed(self.filled(x)))

    def filled(self, spectrograms: Tensor) -> Tensor:
        """(batch, frames, mels) cut off or filled up with zeros to the frames it was made for."""
        return F.pad(spectrograms[:, : self.frames], (0, 0, 0, max(0, self.frames - spectrograms.shape[1])))

    def encode(self, patches: Tensor) -> Tensor:
        """The normalised tokens, (batch, tokens, embed_dim), of embedded patches (batch, tokens - 1, embed_dim)."""
        positions = self.pos_embed.pos_embed
        first = (self.cls_token + positions[:, :1]).expand(len(patches), -1, -1)
        x = with_extra(patches + positions[:, 1:], first, self.grid.extra)
        x = final_norm(run_stack(self.layers, x, self.grid), self.norm_f)
        return self.norm_f(x) if self.norm_twice else x

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of a spectrogram; a multiply-add is two."""
        patches = 2 * (self.tokens - 1) * self.patch_embed.proj.weight.numel()
        return batch * (
            patches + sum(layer.mixer.flops(self.grid) for layer in self.layers) + 2 * self.head.weight.numel()
        )

    def no_weight_decay(self) -> set[str]:
        """Positions and the class token."""
        return {"cls_token", "pos_embed.pos_embed"}


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    parameters: Parameters = "separate",
    embed_dim: Size | None = None,
    depth: Depth | None = None,
    mels: Size | None = None,
    patch: Size | None = None,
    patch_frames: Size | None = None,
    d_state: Size = 16,
    class_token: Place = "middle",
    pool: Pool = "token",
    norm_twice: bool = False,
    frequency_mask: Count = 8,
    time_mask: Count = 10,
    backend: Backend = "auto",
) -> AuM:
    """An AuM for a data set.

    Args:
        describe: classes (or num_classes), samples, rate and model_size of the data set.
        size: a row of SIZES; None: what the data set asks for. embed_dim, depth, mels, patch, patch_frames: other than the size's.
        class_token, pool, norm_twice: see AuM.
        frequency_mask, time_mask: the most mels and frames that are hidden in training (SpecAugment, arXiv 1904.08779); 0: none.
    """
    chosen = {"embed_dim": embed_dim, "depth": depth, "mels": mels, "patch": patch, "patch_frames": patch_frames}
    options = sized(SIZES, size or describe.get("model_size", "base"), **chosen)
    front, frames = front_of(describe, options["mels"], frequency_mask, time_mask)
    return AuM(
        classes_of(describe),
        frames,
        **options,
        parameters=parameters,
        scan=scan,
        d_state=d_state,
        class_token=class_token,
        pool=pool,
        norm_twice=norm_twice,
        backend=backend,
        front=front,
    )


def classes_of(describe: Mapping[str, Any]) -> int:
    """How many classes the data have.

    Raises:
        UserError: they have none.
    """
    if "num_classes" not in describe:
        raise UserError(
            "this model names sounds, and these data have no names", given=f"data={describe.get('name')}",
            do="data=spoken_digits, or a model of separation like model=mamba_tasnet",
        )  # fmt: skip
    return describe["num_classes"]


def front_of(describe: Mapping[str, Any], mels: int, frequency_mask: int, time_mask: int) -> tuple[LogMel, int]:
    """What makes spectrograms of the data's sounds, and their number of frames."""
    rate = describe.get("rate", 16000)
    front = LogMel(rate, mels, frequency_mask, time_mask)
    return front, front.frames(describe.get("samples", rate))
