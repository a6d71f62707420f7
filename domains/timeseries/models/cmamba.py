"""CMamba (arXiv 2406.05316): patches of each series through a Mamba without convolution, then scaled and shifted by all series.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.initialisation import log_decay
from ....core.mixers.mamba import Mamba, Selection
from ....core.mixers.mixer import Call
from ....core.mixers.path_parameters import SharedParameters
from ....core.ranges import Depth, Rate, Size, checked
from ....core.scans import Scan
from .embedding import Positions
from .forecaster import Backend, Forecaster, described, sized
from .instance_norm import InstanceNorm
from .mixing import of_layer
from .patches import FlattenHead, check_patches, patch_count, patched
from .selective_mixer import SelectiveMixer

SIZES = {
    "micro": {"d_model": 32, "d_ff": 32, "n_layer": 2, "d_state": 8, "dt_rank": 8},
    "base": {"d_model": 128, "d_ff": 128, "n_layer": 3, "d_state": 16, "dt_rank": 32},
}


class TokenSkips(SharedParameters):
    """One set, whose decays are the same for all channels, A_log (1, states), and whose x_proj also says the skip of each token."""

    def add(self, mixer: Mamba, begin: Callable[[Tensor, Tensor], None], norm_eps: float | None, factory: dict) -> None:
        """As of PathParameters."""
        super().add(mixer, begin, norm_eps, factory)
        del mixer.D
        mixer.A_log = nn.Parameter(log_decay(1, mixer.d_state))
        mixer.A_log._no_weight_decay = True
        outputs = mixer.x_proj.out_features + mixer.d_inner
        mixer.x_proj = nn.Linear(mixer.d_inner, outputs, bias=False, **factory)

    def read(self, mixer: Mamba, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of PathParameters; the skip is read by `MMamba.project`."""
        sizes = [mixer.dt_rank, mixer.d_state, mixer.d_state]
        step, B, C = F.linear(x, mixer.x_proj.weight[: sum(sizes)]).split(sizes, -1)
        return F.linear(step, mixer.dt_proj.weight), B, C

    def decay_log(self, mixer: Mamba) -> Tensor:
        """As of PathParameters."""
        return mixer.A_log.expand(mixer.d_inner, -1)

    def skip(self, mixer: Mamba) -> None:
        """Not a parameter."""
        return


class MMamba(SelectiveMixer):
    """Mamba without convolution, whose skip is chosen by the token and whose decays are the same for all channels.

    Args: as of SelectiveMixer.
    """

    def __init__(self, d_model: int, d_inner: int, **options):
        super().__init__(d_model, d_inner, bias=True, conv="none", parameters=TokenSkips, **options)

    def project(self, call: Call) -> Selection:
        """As of every mixer."""
        given = super().project(call)
        return given._replace(D=F.linear(given.x, self.x_proj.weight[-self.d_inner :]))


class GDDMLP(nn.Module):
    """Global data-dependent MLP: scale and shift of each token by what the same patch of all variables says.

    Args:
        variables: series of a window. reduction: of their number within.
        average, maximum: what of a token's channels is read.
    """

    def __init__(self, variables: int, reduction: int = 2, average: bool = True, maximum: bool = True):
        super().__init__()
        if not (average or maximum):
            raise UserError("a GDD-MLP reads something", given="average=False, maximum=False", allowed="either or both")
        hidden = max(1, variables // reduction)
        for name in ("fc_sc", "fc_sf"):
            layers = nn.Linear(variables, hidden, bias=False), nn.GELU(), nn.Linear(hidden, variables, bias=False)
            self.add_module(name, nn.Sequential(*layers))
        self.average, self.maximum = average, maximum

    def forward(self, x: Tensor) -> Tensor:
        """(batch, variables, patches, d_model) -> the same shape."""
        read = [x.mean(-1)] if self.average else []
        read += [x.amax(-1)] if self.maximum else []
        scale, shift = (
            torch.sigmoid(sum(layer(part.transpose(1, 2)) for part in read).transpose(1, 2))[..., None]
            for layer in (self.fc_sc, self.fc_sf)
        )
        return scale * x + shift


class Layer(nn.Module):
    """x + dropout(GDD-MLP(M-Mamba(norm(x)))); arguments as of CMamba."""

    def __init__(self, mixer: MMamba, d_model: int, gdd_mlp: GDDMLP | None, dropout: float):
        super().__init__()
        self.mixer, self.norm, self.dropout = mixer, nn.RMSNorm(d_model, 1e-5), nn.Dropout(dropout)
        self.has_mlp = gdd_mlp is not None
        if gdd_mlp is not None:
            self.GDDMLP = gdd_mlp

    def forward(self, x: Tensor) -> Tensor:
        """(batch, variables, patches, d_model) -> the same shape."""
        said = self.mixer(self.norm(x).flatten(0, 1))[0].unflatten(0, x.shape[:2])
        return x + self.dropout(self.GDDMLP(said) if self.has_mlp else said)


class CMamba(Forecaster):
    """CMamba; `features` are (batch, variables, d_model, patches). Marks are not read.

    The paper trains on windows mixed by `channel_mixup`.

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window.
        d_model, d_ff, n_layer, d_state, dt_rank: channels of a token and within a mixer, layers, states, rank of the step.
        patch_len, stride: steps of a patch, and between patches; the last value is repeated a stride long first.
        gdd_mlp: have one in every layer. average, maximum, reduction: see GDDMLP.
        scan: the way over the patches.
        dropout: of what a layer adds. head_dropout: of tokens and answer.
        backend: of the scans.
    """

    tokens_are = "patches"

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        d_model: Size = 128,
        d_ff: Size = 128,
        n_layer: Depth = 3,
        d_state: Size = 16,
        dt_rank: Size = 32,
        patch_len: Size = 16,
        stride: Size = 8,
        gdd_mlp: bool = True,
        average: bool = True,
        maximum: bool = True,
        reduction: Size = 2,
        scan: str | Scan = "raster",
        dropout: Rate = 0.1,
        head_dropout: Rate = 0.1,
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables)
        check_patches(lookback, patch_len)
        self.patch_len, self.stride, self.behind = patch_len, stride, stride
        count = patch_count(lookback + stride, patch_len, stride)
        self.revin_layer = InstanceNorm()
        self.patch_embedding = nn.Module()
        self.patch_embedding.value_embedding = nn.Linear(patch_len, d_model, bias=False)
        self.patch_embedding.position_embedding = Positions(d_model, count)
        self.embed_dropout = nn.Dropout(head_dropout)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            Layer(
                MMamba(d_model, d_ff, d_state=d_state, dt_rank=dt_rank, scan=of_layer(scan, index), backend=backend), d_model,
                GDDMLP(variables, reduction, average, maximum) if gdd_mlp else None, dropout,
            )
            for index in range(n_layer)
        )  # fmt: skip
        self.head = FlattenHead(d_model * count, horizon, dropout=head_dropout)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables, d_model, patches)."""
        x = patched(x, self.patch_len, self.stride, behind=self.behind)
        x = self.patch_embedding.value_embedding(x) + self.patch_embedding.position_embedding(x.shape[2])
        x = self.embed_dropout(x)
        for layer in self.encoder.layers:
            x = layer(x)
        return F.silu(x).transpose(2, 3)

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables, d_model, patches) -> (batch, variables, horizon)."""
        return self.head(features)


def channel_mixup(
    x: Tensor, y: Tensor, deviation: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Windows and their answers with another variable added to each (the paper's augmentation, for training alone).

    Args:
        x, y: (batch, look-back, variables), (batch, horizon, variables).
        deviation: standard deviation of the factor, drawn for each window and variable.
        generator: on the CPU; None: PyTorch's own.
    """
    order = torch.randperm(x.shape[2], generator=generator).to(x.device)
    factor = deviation * torch.randn(x.shape[0], 1, x.shape[2], generator=generator).to(x)
    return x + factor * x[..., order], y + factor * y[..., order]


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "base"] | None = None,
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    d_state: Size | None = None,
    dt_rank: Size | None = None,
    patch_len: Size = 16,
    stride: Size = 8,
    gdd_mlp: bool = True,
    average: bool = True,
    maximum: bool = True,
    reduction: Size = 2,
    dropout: Rate = 0.1,
    head_dropout: Rate = 0.1,
    backend: Backend = "auto",
) -> CMamba:
    """A CMamba for a data set.

    Args:
        describe: lookback, horizon, variables.
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, d_state, dt_rank: other than the size's.
        scan, patch_len, stride, gdd_mlp, average, maximum, reduction, dropout, head_dropout, backend: CMamba's.
    """
    options = sized(
        SIZES, size, describe, d_model=d_model, d_ff=d_ff, n_layer=n_layer, d_state=d_state, dt_rank=dt_rank
    )
    return CMamba(
        **described(describe, "variables"), **options, patch_len=patch_len, stride=stride, gdd_mlp=gdd_mlp, average=average,
        maximum=maximum, reduction=reduction, scan=scan or "raster", dropout=dropout, head_dropout=head_dropout, backend=backend,
    )  # fmt: skip
