"""VMamba's mixer, SS2D: selective scans along several paths over a grid, their sum normalised (arXiv 2401.10166, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..linear import normalised
from ..ranges import Positive, Size
from ..scans import Scan
from ..scans.padded import padded_order
from .mamba import Mamba, MambaState, Selection
from .mixer import Call


class SS2D(Mamba):
    """Selective scans on a grid: projection, depthwise convolution on it, paths with parameters of their own, norm of their sum.

    Parameter names are those of VMamba's checkpoints; what later versions of its code call `x_proj.weight` and `dt_projs.weight`,
    two-dimensional, is read as well.

    Args:
        d_model: channels of the tokens.
        d_state, d_conv, expand: see Mamba; the convolution's kernel is 3 wide on each axis where d_conv is None.
        gate: the normalised sum is multiplied by SiLU of a second half of the input projection ("v0"); without: "v05_noz".
        scan, axes: see PathMixer.
        padded: scan modes that divide the grid (windows, skips) are given a grid filled up with zeros to a multiple of their
            window or step, as EfficientVMamba and LocalMamba did; without it they are cut at the border.
        options: as of Mamba.
    """

    scan_gates = False

    def __init__(
        self, d_model: Size, d_state: Size = 16, d_conv: Size | None = None, expand: Positive = 2, gate: bool = True,
        scan: str | Scan = "cross", axes: int = 2, padded: bool = False, device: torch.device | None = None,
        dtype: torch.dtype | None = None, **options,
    ):  # fmt: skip
        options = {"parameters": "stacked", "conv": "grid", **options}
        super().__init__(
            d_model, d_state, d_conv, expand, gate=gate, scan=scan, axes=axes, device=device, dtype=dtype, **options
        )
        self.padded = padded
        self.out_norm = nn.LayerNorm(self.d_inner, device=device, dtype=dtype)

    def shares_tokens(self) -> bool:
        return not self.padded and super().shares_tokens()

    def project(self, call: Call) -> Selection:
        given = super().project(call)
        if not self.padded:
            return given
        order, zeros = padded_order(self.scan, call.sizes, given.x.device)
        parts = (F.pad(t, (0, 0, 0, zeros)) for t in (given.x, given.delta, given.B, given.C))
        return given._replace(**dict(zip(("x", "delta", "B", "C"), parts, strict=True)), order=order)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        y, state = super().mix_tokens(given, call)
        return y[..., : call.x.shape[1], :] if self.padded else y, state

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return super().finish(normalised(self.out_norm, y).to(y.dtype), given)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """As for every module, from either form of the names."""
        return nn.Module.load_state_dict(self, state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        own = self._parameters
        for name in ("x_proj", "dt_projs"):
            found, stacked = state_dict.get(f"{prefix}{name}.weight"), own.get(f"{name}_weight")
            if stacked is not None and found is not None and found.numel() == stacked.numel():
                state_dict[f"{prefix}{name}_weight"] = state_dict.pop(f"{prefix}{name}.weight").view_as(stacked)
        saved = state_dict.get(f"{prefix}dt_projs_bias")
        if saved is not None and "dt_projs_bias" in own and saved.shape[0] != own["dt_projs_bias"].shape[0]:
            raise UserError(
                "the checkpoint was saved with another scan than this model's", given=f"{saved.shape[0]} paths in {prefix}",
                allowed=f"{self.paths} paths, those of scan={self.scan}",
                do="build the model with the scan that the checkpoint was trained with",
            )  # fmt: skip
        super()._load_from_state_dict(state_dict, prefix, *rest)
