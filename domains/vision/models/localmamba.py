"""LocalMamba (arXiv 2403.09338): four directions a layer, windows among them, weighed channel by channel and summed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.grid_blocks import ChannelGate
from ....core.linear import applied, normalised
from ....core.mixers.mamba import Mamba, MambaState, Selection
from ....core.mixers.mixer import Call
from ....core.mixers.path_parameters import PathParameters
from ....core.mixers.ss2d import SS2D
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from ....core.scans.padded import padded_order

DIRECTIONS = {
    "h": "raster", "h_flip": "reverse", "v": "column", "v_flip": "column_reverse", "w2": "local(window=2)",
    "w2_flip": "local_flip(window=2)", "w7": "local(window=7)", "w7_flip": "local_flip(window=7)",
}  # fmt: skip


# The directions of each layer that the authors' search found, a letter each: what the published weights were trained with.
LETTERS = dict(zip("hHvVaAbB", DIRECTIONS, strict=True))
SEARCHED = {
    ("localvim", (192, 20)): "hVbB HAbB hHvb hHvV hHvV hHvV HvVb HvVA hHvV hHvV hvVa hvVA hHVb HvVa hHvV hvaA vVab hHva hHAb vVaA",
    ("localvmamba", (2, 2, 9, 2)): "hHbB HVaA HVAb HvVa hHVA HVaA hAbB hHvV hVbB HvaB vVaB hHVA VAbB HVAB HvbB",
    ("localvmamba", (2, 2, 27, 2)): "hvVB hHvb HvVb HvAb HvAb HVaB HvVb hvVb hvVb hvVB hHvV hvVa vVAb hHva HvVB hHvV hvVB hvVB "
    "hHVb HVAb HvVB vVbB hvVB HvVa hvVA hHvb hHbB hVaA hVab hvVB HvAb HVbB hvbB",
}  # fmt: skip


def searched_directions(model: str, size: tuple[int, ...]) -> list[list[str]] | None:
    """The directions of a published model's layers; None: it was published without a search, or there is none of that size.

    Args:
        model: "localvim", of size (width, depth), or "localvmamba", of size depths.
    """
    rows = SEARCHED.get((model, tuple(size)))
    return None if rows is None else [[LETTERS[letter] for letter in row] for row in rows.split()]


def scans_of(directions: Sequence[Sequence[str]] | None, scan: str | Scan, layers: int) -> list[Scan]:
    """The scan of each layer.

    Args:
        directions: names of LocalMamba's choices for each layer, as its search found them; None: `scan` in all of them.
    """
    if directions is None:
        scan = get_scan(scan)
        return [scan.layer(number) for number in range(layers)]
    if len(directions) != layers:
        raise UserError("every layer needs its directions", given=f"{len(directions)} rows", allowed=f"{layers} rows")
    unknown = [name for row in directions for name in row if name not in DIRECTIONS]
    if unknown:
        raise UserError("there is no such direction", given=unknown, allowed=list(DIRECTIONS))
    return [get_scan("+".join(DIRECTIONS[name] for name in row)) for row in directions]


def as_published(y: Tensor, scan: Scan, sizes: Sequence[int]) -> Tensor:
    """What a scan says, (batch, paths, tokens, channels), as the published code puts it back at its tokens.

    It undid the order of the columns as if the grid were its own transpose: where that is not square, tokens get one another's.
    """
    if sizes[0] == sizes[1]:
        return y
    column = get_scan("column").order(tuple(sizes), y.device)[0].long()
    names = [part.mode_name for part in scan.parts for _ in part.paths((0, 0))]
    parts = [each.index_select(1, column[column]) if name.startswith("column") else each for each, name in zip(
        y.unbind(1), names, strict=True
    )]  # fmt: skip
    return torch.stack(parts, 1)


class LocalSS2D(SS2D):
    """SS2D whose paths are weighed by a gate of channels, one for all, before they are summed.

    padded (see SS2D) goes with `as_published`.
    """

    def __init__(self, d_model: int, device=None, dtype=None, **options):
        super().__init__(d_model, merge="none", device=device, dtype=dtype, **options)
        gate = ChannelGate(self.d_inner, device=device, dtype=dtype)
        self.multi_scan = nn.ModuleDict({"attn": gate})

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        y, state = super().mix_tokens(given, call)
        return as_published(y, self.scan, call.sizes) if self.padded else y, state

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        y = self.multi_scan["attn"](y).sum(1)
        y = normalised(self.out_norm, y).to(y.dtype)
        return applied(self.out_proj, y if given.gate is None else y * F.silu(given.gate))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        return super().flops(grid) + self.paths * self.multi_scan["attn"].flops(())


class LocalMixer(Mamba):
    """LocalVim's mixer: each path has its own convolution and parameters, and is weighed by a gate of channels, one for all.

    Args:
        padded: as the published code did it: grids are filled up with zeros to whole windows, and see `as_published`.
        The others as of Mamba.
    """

    scan_gates = False

    def __init__(
        self, d_model: int, scan: str | Scan = "local_vim", padded: bool = False, device=None, dtype=None, **options
    ):
        numbered = partial(PathParameters, suffixes=[str(path) for path in range(get_scan(scan).paths(2))])
        options = {"parameters": numbered, **options}
        super().__init__(d_model, scan=scan, axes=2, merge="none", device=device, dtype=dtype, **options)
        self.padded = padded
        self.attn = ChannelGate(self.d_inner, device=device, dtype=dtype)

    def shares_tokens(self) -> bool:
        return not self.padded and super().shares_tokens()

    def project(self, call: Call) -> Selection:
        if self.padded and not call.extra:
            order, zeros = padded_order(self.scan, call.sizes, call.x.device)
            call = call._replace(x=F.pad(call.x, (0, 0, 0, zeros)), order=order)
        return super().project(call)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        y, state = super().mix_tokens(given, call)
        if not self.padded or call.extra:
            return y * F.silu(given.gate[:, None]), state
        length = call.x.shape[1]
        y = y[..., :length, :] * F.silu(given.gate[:, None, :length])
        return as_published(y, self.scan, call.sizes), state

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return applied(self.out_proj, self.attn(y).sum(1))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        return super().flops(grid) + self.paths * self.attn.flops(())
