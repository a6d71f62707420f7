"""MambaTS (arXiv 2405.16440): the patches of all variables in one sequence, variable after variable, in an order that is learnt.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.initialisation import scale_output_projections
from ....core.mixers.convolutions import NoConvolution
from ....core.mixers.mamba import Mamba
from ....core.mixers.mixer import Call
from ....core.ranges import Count, Depth, Positive, Rate, Seed, Size, checked
from ....core.scans import Scan
from .forecaster import Backend, Compat, Forecaster, described, is_published, sized
from .instance_norm import InstanceNorm
from .mixing import of_layer
from .patches import FlattenHead, check_patches, patch_count, patched
from .selective_mixer import SelectiveMixer
from .variable_order import SOLVERS, shortest_order

SIZES = {
    "micro": {"d_model": 16, "n_layer": 2, "patch_len": 12, "stride": 12},
    "base": {"d_model": 16, "n_layer": 3, "patch_len": 48, "stride": 48},  # for a look-back of 720
    "large": {"d_model": 16, "n_layer": 5, "patch_len": 48, "stride": 48},
}
Solver = Literal["annealing", "local_search", "greedy"]


class Untouched(NoConvolution):
    """Neither convolution nor its SiLU."""

    def __call__(self, mixer: Mamba, x: Tensor, call: Call, order: Tensor | None) -> tuple[Tensor, None]:
        """The tokens as they are."""
        return x, None


class TemporalMamba(SelectiveMixer):
    """The paper's temporal Mamba block: without convolution (and then without its SiLU), with dropout of step, B and C.

    Args: as of SelectiveMixer. d_conv: width of the convolution, 0: none. dropout: see above.
    """

    def __init__(self, d_model: int, d_inner: int, d_conv: int = 0, dropout: float = 0.0, **options):
        conv = {"d_conv": d_conv} if d_conv else {"conv": Untouched}
        super().__init__(d_model, d_inner, **conv, **options)
        if dropout:
            self.x_proj = nn.Sequential(self.x_proj, nn.Dropout(dropout))


class Layer(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, d_model: int, mixer: nn.Module):
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(d_model), mixer

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        return x + self.mixer(self.norm(x))[0]


class VariableScan(nn.Module):
    """Layers over all variables' patches, and what has been learnt about the variables' order.

    In training each window's variables are shuffled; `observe` then books the window's loss to each pair of neighbours. In
    evaluation they stand in the order with the smallest mean loss, or the one that was set.

    Args:
        layers: over (batch, length, d_model).
        variables: series of a window.
        shuffle: all of the above; else they stand as they come.
        solver: of the order, see shortest_order. seed: of its random moves.
        compat: see MambaTS.
    """

    def __init__(
        self, layers: Sequence[nn.Module], d_model: int, variables: int, shuffle: bool, solver: str, seed: int, compat: str
    ):  # fmt: skip
        super().__init__()
        check_choice("solver", solver, SOLVERS)
        self.layers, self.norm_f = nn.ModuleList(layers), nn.LayerNorm(d_model)
        square = (variables, variables)
        # Parameters, which nothing trains, for they are ones in checkpoints.
        for name, shape in (("adjacency_matrix", square), ("count_matrix", square), ("ending_points", (variables,))):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))
        self.shuffle, self.solver, self.seed, self.compat = shuffle, solver, seed, compat
        self.given: Tensor | None = None
        self._walked: Tensor | None = None
        self._found: Tensor | None = None  # of the matrices as they are; whatever changes them forgets it

    def forward(self, x: Tensor) -> Tensor:
        """(batch, variables, patches, d_model) -> the same shape."""
        batch, variables, patches, _ = x.shape
        order = self._order(batch, x.device)
        if order is not None:
            x = _taken(x, order)
        x = x.flatten(1, 2)
        for layer in self.layers:
            x = layer(x)
        x = self.norm_f(x).unflatten(1, (variables, patches))
        return x if order is None else _taken(x, order.argsort(1))

    def order(self) -> Tensor:
        """The variables in the order of evaluation, (variables,) int64 on the CPU."""
        if self.given is not None:
            return self.given
        if self._found is None:
            self._found = self._solve()
        return self._found

    def train(self, mode: bool = True) -> VariableScan:
        """As of every module."""
        self._found = None
        return super().train(mode)

    def _load_from_state_dict(self, *arguments, **options) -> None:
        self._found = None
        super()._load_from_state_dict(*arguments, **options)

    @torch.no_grad()
    def observe(self, losses: Tensor) -> None:
        """Book the losses (batch,) of the windows of the last training call, over their deviation, to their neighbours."""
        walked, self._walked, self._found = self._walked, None, None
        if walked is None:
            return
        if losses.shape != walked.shape[:1]:
            raise UserError("a loss a window is needed", given=tuple(losses.shape), allowed=f"({len(walked)},)")
        if len(losses) < 2:
            return
        cost = losses.detach() / losses.detach().var().sqrt()
        if not cost.isfinite().all():
            return
        variables = walked.shape[1]
        # The first variable is booked as its own neighbour: the diagonal says how good each is as the beginning.
        before = torch.cat([walked[:, :1], walked[:, :-1]], 1)
        pairs = (before * variables + walked).flatten()
        spread = cost.repeat(variables) if self.compat == "published" else cost.repeat_interleave(variables)
        spread = spread.to(self.adjacency_matrix.dtype)
        self.adjacency_matrix.view(-1).scatter_add_(0, pairs, spread)
        self.count_matrix.view(-1).scatter_add_(0, pairs, torch.ones_like(spread))
        self.ending_points.scatter_add_(0, walked[:, -1], cost.to(self.ending_points.dtype))

    def _solve(self) -> Tensor:
        counts = self.count_matrix.detach().double().cpu()
        if not counts.any():
            return torch.arange(len(counts))
        costs = self.adjacency_matrix.detach().double().cpu() / counts
        # A pair that never stood side by side is as good as the mean of those that did.
        costs = torch.where(counts > 0, costs, costs[counts > 0].mean()).numpy()
        return torch.from_numpy(shortest_order(costs, costs.diagonal(), self.solver, self.seed))

    def _order(self, batch: int, device: torch.device) -> Tensor | None:
        if not self.shuffle:
            return None
        if self.training:
            self._walked = torch.rand(batch, len(self.ending_points), device=device).argsort(1)
            return self._walked
        return self.order().to(device).expand(batch, -1)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    """Each window's variables, (batch, variables, ...), in its order (batch, variables)."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.dim() - 2)).expand_as(x))


class MambaTS(Forecaster):
    """MambaTS; `features` are (batch, variables, patches, d_model). Marks are not read.

    After each training step the task gives `observe` the loss of every window, for the order of the variables.

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window.
        d_model, n_layer, d_state, expand: channels of a token, layers, states a channel, inner channels a channel.
        patch_len, stride: steps of a patch, and between patches.
        d_conv: width of a causal convolution in each layer, 0: none, as in the paper.
        shuffle: shuffle variables in training, and order them in evaluation. solver: of the order: "annealing",
            "local_search" or "greedy". seed: of its random moves.
        scan: the way over the patches of all variables.
        dropout: of what the mixers select by.
        compat: "corrected": a look-back that patches do not fill gets its first value repeated in front; a window's loss is
            booked to its own neighbours. "published": what is left over at its end, the newest values, is not seen; losses are
            booked to other windows' neighbours, for they lie in memory in another order than the pairs.
        backend: of the scans.
    """

    tokens_are = "both"

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        d_model: Size = 16,
        n_layer: Depth = 3,
        d_state: Size = 16,
        expand: Positive = 2,
        patch_len: Size = 48,
        stride: Size = 48,
        d_conv: Count = 0,
        shuffle: bool = True,
        solver: Solver = "annealing",
        seed: Seed = 0,
        scan: str | Scan = "raster",
        dropout: Rate = 0.3,
        compat: Compat = "corrected",
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables)
        check_patches(lookback, patch_len)
        over = 0 if is_published(compat) else (lookback - patch_len) % stride
        self.patch_len, self.stride, self.before = patch_len, stride, (stride - over) % stride
        self.revin_layer = InstanceNorm()
        self.value_embedding = nn.Sequential(nn.Identity(), nn.Linear(patch_len, d_model, bias=False))
        mixing = {"d_inner": int(expand * d_model), "d_state": d_state, "d_conv": d_conv, "dropout": dropout}
        mixers = (
            TemporalMamba(d_model, **mixing, scan=of_layer(scan, index), backend=backend) for index in range(n_layer)
        )
        layers = [Layer(d_model, mixer) for mixer in mixers]
        self.encoder = VariableScan(layers, d_model, variables, shuffle, solver, seed, compat)
        scale_output_projections(self.encoder, n_layer)
        self.head = FlattenHead(d_model * patch_count(lookback + self.before, patch_len, stride), horizon)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables, patches, d_model)."""
        return self.encoder(self.value_embedding(patched(x, self.patch_len, self.stride, before=self.before)))

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables, patches, d_model) -> (batch, variables, horizon)."""
        return self.head(features)

    def observe(self, losses: Tensor) -> None:
        """Learn about the variables' order from the losses (batch,) of the windows of the last call in training."""
        self.encoder.observe(losses)

    def variable_order(self) -> list[int]:
        """The variables in the order in which evaluation reads them."""
        return self.encoder.order().tolist()

    def set_variable_order(self, order: Sequence[int] | None) -> None:
        """Read the variables in this order in evaluation, whatever was learnt; None: as learnt. Not kept in checkpoints."""
        if order is not None and sorted(order) != list(range(self.variables)):
            raise UserError(
                "not an order of the variables", given=list(order), allowed=f"each of 0 to {self.variables - 1} once"
            )
        self.encoder.given = None if order is None else torch.tensor(list(order), dtype=torch.int64)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "base", "large"] | None = None,
    d_model: Size | None = None,
    n_layer: Depth | None = None,
    patch_len: Size | None = None,
    stride: Size | None = None,
    d_state: Size = 16,
    d_conv: Count = 0,
    shuffle: bool = True,
    solver: Solver = "annealing",
    dropout: Rate = 0.3,
    compat: Compat = "corrected",
    backend: Backend = "auto",
) -> MambaTS:
    """A MambaTS for a data set.

    Args:
        describe: lookback, horizon, variables.
        size: a row of SIZES, None: what the data ask for; d_model, n_layer, patch_len, stride: other than the size's.
        scan, d_state, d_conv, shuffle, solver, dropout, compat, backend: MambaTS's.
    """
    options = sized(SIZES, size, describe, d_model=d_model, n_layer=n_layer, patch_len=patch_len, stride=stride)
    return MambaTS(
        **described(describe, "variables"), **options, d_state=d_state, d_conv=d_conv, shuffle=shuffle, solver=solver,
        scan=scan or "raster", dropout=dropout, compat=compat, backend=backend,
    )  # fmt: skip
