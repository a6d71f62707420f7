"""VMRNN (arXiv 2403.16536): a recurrent cell whose gate is what SS2D layers say of a frame's patches and of its hidden state.

VMRNN-B has its cells one after the other on one grid of patches, VMRNN-D on grids that get coarser and finer again. Transposed
convolutions make an image of the last cell's hidden state. Parameter names are those of the authors' checkpoints. A cell of
convolutions, ConvLSTM's (arXiv 1506.04214), can be put in the place of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from timm.layers import DropPath, PatchEmbed
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.grid_blocks import PatchExpand, PatchMerging, mix_grid
from ....core.linear import applied, normalised
from ....core.mixers.ss2d import SS2D
from ....core.ranges import Depth, Rate, Size, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from .backbone import Backbone, both_sides, grids_of, size_for, with_names
from .position import strip_wrapping
from .registration import FILTERS

# Of VMRNN-D, `depths` are of the cells on the way to coarser grids, `depths_up` of those on the way back, the coarsest first.
SIZES = {
    "micro": {"embed_dim": 32, "depths": (2,)},
    "kth": {"embed_dim": 128, "depths": (6,), "patch_size": 2},
    "taxibj": {"embed_dim": 128, "depths": (12,), "patch_size": 4},
    "moving_mnist": {"embed_dim": 128, "depths": (2, 6), "depths_up": (2, 6), "patch_size": 2},
}
PATCHES = (8, 4, 2, 1)


class State(NamedTuple):
    """What a cell carries from one frame to the next, (batch, rows, columns, channels) each."""

    hidden: Tensor
    memory: Tensor


class VSB(nn.Module):
    """An SS2D layer; of a cell's first one the input is joined with the hidden state."""

    def __init__(self, channels: int, mixer: nn.Module, joins: bool, drop_path: float):
        super().__init__()
        self.ln_1, self.self_attention = nn.LayerNorm(channels), mixer
        self.linear = nn.Linear(2 * channels, channels) if joins else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(batch, rows, columns, channels) to the same; `hidden` like x where it joins."""
        y = normalised(self.ln_1, x).to(x.dtype)
        if self.linear is not None:
            y = applied(self.linear, torch.cat([y, normalised(self.ln_1, hidden).to(x.dtype)], -1))
        return x + self.drop_path(mix_grid(self.self_attention, y))


class VMRNNCell(nn.Module):
    """Layers that see a frame and the hidden state; the last one's answer is gate and candidate of the memory (equations 3 to 6).

    Args:
        channels: of a token. scans: of its layers. drop_paths: of its layers.
        mixing: further arguments of SS2D.
    """

    def __init__(self, channels: int, scans: Sequence[Scan], drop_paths: Sequence[float], **mixing):
        super().__init__()
        self.VSBs = nn.ModuleList(
            VSB(channels, SS2D(channels, scan=scan, **mixing), number == 0, rate)
            for number, (scan, rate) in enumerate(zip(scans, drop_paths, strict=True))
        )

    def forward(self, x: Tensor, state: State) -> State:
        """A frame's tokens, (batch, rows, columns, channels), and the state before it, to the state after it."""
        for block in self.VSBs:
            x = block(x, state.hidden)
        gate = x.sigmoid()
        memory = gate * (state.memory + x.tanh())
        return State(gate * memory.tanh(), memory)


class ConvLSTMCell(nn.Module):
    """Gates from a 3x3 convolution over a frame's tokens and the hidden state, without peepholes (arXiv 1506.04214, equation 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, state: State) -> State:
        """As of VMRNNCell."""
        joined = torch.cat([x, state.hidden], -1).movedim(-1, 1)
        written, kept, candidate, shown = self.gates(joined).movedim(1, -1).chunk(4, -1)
        memory = kept.sigmoid() * state.memory + written.sigmoid() * candidate.tanh()
        return State(shown.sigmoid() * memory.tanh(), memory)


class PatchInflating(nn.Module):
    """Makes an image of a map: transposed convolutions, each of which doubles its sides.

    Args:
        channels: of a token. outputs: of the image. patch_size: pixels of a token, a power of 2.
    """

    def __init__(self, channels: int, outputs: int, patch_size: int):
        super().__init__()
        double = partial(nn.ConvTranspose2d, channels, kernel_size=3, stride=2, padding=1, output_padding=1)
        steps = [
            (double(channels), nn.GroupNorm(math.gcd(16, channels), channels), nn.LeakyReLU(0.2))
            for _ in range(int(math.log2(patch_size)) - 1)
        ]
        self.Conv_ = nn.Sequential(*(layer for step in steps for layer in step))
        self.Conv = double(outputs) if patch_size > 1 else nn.ConvTranspose2d(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, rows, columns, channels) to (batch, outputs, rows * patch_size, columns * patch_size)."""
        return self.Conv(self.Conv_(x.movedim(-1, 1)))


class Level(nn.Module):
    """VMRNN-B: cells on the grid of a frame's patches."""

    def __init__(self, embed: nn.Module, cells: Sequence[nn.Module], inflating: nn.Module | None):
        super().__init__()
        self.patch_embed, self.layers, self.patch_inflated = embed, nn.ModuleList(cells), inflating

    def forward(self, frame: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """(batch, channels, height, width) to the last hidden state, and the states of the cells after it."""
        x, after = self.patch_embed(frame), []
        for cell, state in zip(self.layers, states, strict=True):
            after.append(cell(x, _begun(state, x)))
            x = after[-1].hidden
        return x, after


class Descent(nn.Module):
    """The first half of VMRNN-D: behind each cell the grid is made coarser."""

    def __init__(self, embed: nn.Module, cells: Sequence[nn.Module], widths: Sequence[int]):
        super().__init__()
        self.patch_embed, self.layers = embed, nn.ModuleList(cells)
        self.downsample = nn.ModuleList(map(PatchMerging, widths))

    def forward(
        self, frame: Tensor, states: Sequence[State | None]
    ) -> tuple[Tensor, list[State], list[tuple[int, int]]]:
        """As of Level: the coarsest map, the states, and the grid of each cell."""
        x, after, sizes = self.patch_embed(frame), [], []
        for cell, merge, state in zip(self.layers, self.downsample, states, strict=True):
            after.append(cell(x, _begun(state, x)))
            sizes.append(tuple(x.shape[1:3]))
            x = merge(after[-1].hidden)
        return x, after, sizes


class Ascent(nn.Module):
    """The second half of VMRNN-D: behind each cell the grid is made finer."""

    def __init__(self, cells: Sequence[nn.Module], widths: Sequence[int], inflating: nn.Module | None):
        super().__init__()
        self.layers, self.Unembed = nn.ModuleList(cells), inflating
        self.upsample = nn.ModuleList(PatchExpand(width, width // 2) for width in widths)

    def forward(
        self, x: Tensor, states: Sequence[State | None], sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, list[State]]:
        """The coarsest map to one of the finest grid, and the states; sizes: of the grids on the way, the finest first."""
        after = []
        for cell, expand, state, (rows, columns) in zip(self.layers, self.upsample, states, sizes[::-1], strict=True):
            after.append(cell(x, _begun(state, x)))
            x = expand(after[-1].hidden)[:, :rows, :columns]
        return x, after


class Recurrent(Backbone):
    """What VMRNN's two models share: the cells, frame after frame.

    Args:
        img_size: side of the frames in pixels, or (height, width), that its grids are said for; it takes frames of any size.
        in_chans: channels of a frame. frames: of a video, that its tokens are counted for; it takes any number.
        inflates: whether the last map becomes an image.
        patch_size: pixels of a token each way: 8, 4, 2 or 1; None: the largest that leaves 8 tokens a side.
        embed_dim: channels of a token of the finest grid.
        depths: SS2D layers of each cell. depths_up: those of VMRNN-D's way back to the finest grid, as many cells, the coarsest
            first; None: VMRNN-B.
        cell: "vmrnn", or "convlstm", which has one layer, no scan and no d_state.
        scan: a scan mode or Scan; layer i walks scan.layer(i).
        d_state, backend: the mixers' (core.mixers.ss2d.SS2D).
        drop_path_rate: stochastic depth, of VMRNN-B's layers all alike, of VMRNN-D's rising to it on the way to the coarsest grid.
    """

    takes_any_size = True

    @checked
    def __init__(
        self,
        img_size: int | tuple[int, int] = 64,
        in_chans: Size = 1,
        frames: Size = 1,
        inflates: bool = True,
        patch_size: Literal[8, 4, 2, 1] | None = None,
        embed_dim: Size = 128,
        depths: tuple[Depth, ...] = (6,),
        depths_up: tuple[Depth, ...] | None = None,
        cell: Literal["vmrnn", "convlstm"] = "vmrnn",
        scan: str | Scan = "cross",
        d_state: Size = 16,
        drop_path_rate: Rate = 0.0,
        backend: str = "auto",
    ):
        super().__init__()
        self.img_size, self.frames, self.in_chans, self.embed_dim = both_sides(img_size), frames, in_chans, embed_dim
        check_choice("cell", cell, ("vmrnn", "convlstm"), "cell")
        if patch_size is not None:
            check_choice("patch_size", patch_size, PATCHES, "patch size")
        if depths_up is not None and len(depths_up) != len(depths):
            raise UserError("VMRNN-D has as many cells up as down", given=f"depths={depths}, depths_up={depths_up}")
        self.patch_size = patch_size or next(side for side in PATCHES if side == 1 or min(self.img_size) >= 8 * side)
        self.deep = depths_up is not None
        scan = get_scan(scan) if isinstance(scan, str) else scan
        self.cells, layers = len(depths) + len(depths_up or ()), iter(range(sum(depths) + sum(depths_up or ())))

        def make(width: int, rates: Sequence[float]) -> nn.Module:
            if cell == "convlstm":
                return ConvLSTMCell(width)
            scans = [scan.layer(next(layers)) for _ in rates]
            return VMRNNCell(width, scans, rates, d_state=d_state, backend=backend)

        embed = PatchEmbed(
            None, self.patch_size, in_chans, embed_dim, nn.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True
        )
        inflating = PatchInflating(embed_dim, in_chans, self.patch_size) if inflates else None
        for grid in self.grids if cell == "vmrnn" else ():
            scan.order(grid)  # a scan that cannot walk this grid says so now, not in training
        if not self.deep:
            cells = [make(embed_dim, [drop_path_rate] * depth) for depth in depths]
            self.ST = Level(embed, cells, inflating)
            return
        down = [embed_dim * 2**level for level in range(len(depths))]
        up = [2 * width for width in down[::-1]]
        rates, back = _rising(drop_path_rate, depths), _rising(drop_path_rate, depths_up[::-1])[::-1]
        self.Downsample = Descent(embed, list(map(make, down, rates)), down)
        self.Upsample = Ascent(list(map(make, up, back)), up, inflating)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The tokens of a frame: of VMRNN-D on each grid, the finest first."""
        levels = self.cells // 2 + 1 if self.deep else 1
        return tuple(grids_of(self.img_size, [self.patch_size * 2**level for level in range(levels)]))

    @property
    def tokens(self) -> int:
        """Tokens of the finest grid in all frames."""
        return self.frames * self.grids[0].tokens

    def step(self, frame: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """One frame, (batch, channels, height, width), and the states before it, to a map of the finest grid and those after it.

        Args:
            states: one a cell; None: the video begins here.
        """
        states = [None] * self.cells if states is None else states
        if len(states) != self.cells:
            raise UserError("each cell has a state", given=f"{len(states)} states", allowed=f"{self.cells}")
        if not self.deep:
            return self.ST(frame, states)
        half = self.cells // 2
        x, down, sizes = self.Downsample(frame, states[:half])
        x, up = self.Upsample(x, states[half:], sizes)
        return x, down + up

    def frames_of(self, video: Tensor) -> tuple[Tensor, ...]:
        """(batch, channels, frames, height, width) to each frame; an image is a video of one."""
        video = video[:, :, None] if video.dim() == 4 else video
        if video.dim() != 5 or video.shape[1] != self.in_chans or not video.shape[2]:
            raise UserError(
                "this is no video for the model", given="x".join(map(str, video.shape)),
                allowed=f"(batch, {self.in_chans}, frames, height, width), at least one frame",
            )  # fmt: skip
        return video.unbind(2)


class VMRNN(Recurrent):
    """Predicts frames: after each frame the next one; arguments as of Recurrent."""

    predicts_frames = True

    def forward(
        self, video: Tensor, further: int = 0, states: Sequence[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """The frame after each frame, then further ones, each from the one predicted before it.

        Args:
            video: (batch, channels, frames, height, width) within 0 and 1.
            further: how many.
            states: what the call on the frames before these returned; None: the video begins here.

        Returns:
            (batch, channels, frames + further, height, width) within 0 and 1, and the states to go on from.
        """
        seen, said = self.frames_of(video), []
        (height, width), inflating = video.shape[-2:], self.Upsample.Unembed if self.deep else self.ST.patch_inflated
        for number in range(len(seen) + further):
            x, states = self.step(seen[number] if number < len(seen) else said[-1], states)
            said.append(inflating(x)[..., :height, :width].sigmoid())
        return torch.stack(said, 2), states


class VMRNNClassifier(Recurrent):
    """Names a video's class from the mean of the map behind its last frame; num_classes: outputs; the others as of Recurrent."""

    def __init__(self, img_size: int | tuple[int, int] = 64, in_chans: int = 1, num_classes: int = 10, **options):
        super().__init__(img_size, in_chans, inflates=False, **options)
        self.num_classes = num_classes
        self.norm, self.head = nn.LayerNorm(self.embed_dim), nn.Linear(self.embed_dim, num_classes)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def forward_features(self, video: Tensor) -> Tensor:
        """A video, or an image, to the map behind the last frame, (batch, rows, columns, channels)."""
        states = None
        for frame in self.frames_of(video):
            x, states = self.step(frame, states)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean over the map, normalised, and unless `pre_logits` its class scores: (batch, embed_dim or num_classes)."""
        x = normalised(self.norm, x.mean((1, 2))).to(x.dtype)
        return x if pre_logits else self.head(x)


def _begun(state: State | None, x: Tensor) -> State:
    """The state before the first frame, where there is none."""
    return State(torch.zeros_like(x), torch.zeros_like(x)) if state is None else State(*state)


def _rising(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth of each layer of cells of such depths, rising from 0."""
    return [each.tolist() for each in torch.linspace(0, rate, sum(depths), device="cpu").split(list(depths))]


# What the published code makes and never calls.
UNUSED = re.compile(r"\.VSBs\.[1-9]\d*\.linear\.|^Upsample\.patch_embed\.")
INFLATING = re.compile(r"^(ST\.patch_inflated|Upsample\.Unembed)\.")


def checkpoint_filter_fn(state_dict: Mapping, model: Recurrent) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, without what no forward pass uses.

    To a classifier what makes images is of no use either; its norm and head stay as they are where the weights have none.
    """
    state = with_names(strip_wrapping(state_dict), ((r"^ST\.layer\.", "ST.layers.0."),))
    state = {name: value for name, value in state.items() if not UNUSED.search(name)}
    if not isinstance(model, VMRNNClassifier):
        return state
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("norm.", "head."))}
    return own | {name: value for name, value in state.items() if not INFLATING.search(name)}


FILTERS[VMRNN] = FILTERS[VMRNNClassifier] = checkpoint_filter_fn


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan | None = None,
    size: Literal["micro", "kth", "taxibj", "moving_mnist"] | None = None,
    cell: Literal["vmrnn", "convlstm"] = "vmrnn",
    patch_size: Literal[8, 4, 2, 1] | None = None,
    d_state: Size = 16,
    drop_path_rate: Rate = 0.0,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> VMRNN | VMRNNClassifier:
    """A VMRNN for a data set: one that predicts frames where the task asks for that, else a classifier.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size, frames where it has
            videos; and predicts_frames, which the task says.
        scan: the scan of its layers; None: the four directions of "cross".
        size: a size of SIZES; None: what the data set asks for ("tiny": kth).
        cell: "convlstm": a cell of convolutions in the place of each.
        patch_size: pixels; None: the size's, or the largest that leaves 8 tokens a side.
    """
    chosen = size_for(describe, size, {**SIZES, "tiny": {**SIZES["kth"], "patch_size": None}})
    chosen |= {} if patch_size is None else {"patch_size": patch_size}
    kind = VMRNN if describe.get("predicts_frames") else partial(VMRNNClassifier, num_classes=describe["num_classes"])
    return kind(
        img_size=tuple(describe["image_size"]), in_chans=describe["channels"], frames=describe.get("frames") or 1,
        cell=cell, scan=scan or "cross", d_state=d_state, drop_path_rate=drop_path_rate, backend=backend, **chosen,
    )  # fmt: skip
