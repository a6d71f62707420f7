"""Layers over the nodes of a batch of graphs: messages between neighbours, and Mamba over all nodes of a graph in an order.

As in GPS (arXiv 2205.12454) both see the same nodes and what they say is added. Parameter names are
those of GraphGPS and Graph-Mamba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import check_choice
from ....core.mixers.mamba import Mamba
from ....core.scans.sets import degree_key, order_by

ORDERS = ("degree_noise", "degree", "random", "as_given")
REPEATS = 5  # orders that are averaged outside training, where the order is partly drawn
# What stands behind "Mamba_" in the original's global_model_type, and what its mixer then is.
MIXERS = {
    "": {}, "2": {"d_state": 8, "expand": 2}, "4": {"d_state": 4, "expand": 4}, "SmallConv": {"d_conv": 2},
    "SmallState": {"d_state": 8},
}  # fmt: skip


class Graphs(NamedTuple):
    """Which node belongs where in a batch of graphs.

    edges: (2, edges) int64, from and to which node. owner: (nodes,) int64, the graph of each. place: (nodes,) int64, its number in
    the graph. valid: (batch, longest) bool, which of the places of a padded batch hold a node.
    """

    edges: Tensor
    owner: Tensor
    place: Tensor
    valid: Tensor

    @classmethod
    def of(cls, tags: Tensor, edges: Tensor) -> Graphs:
        """From tags (batch, nodes), negative where there is no node, and edges (batch, edges, 2), negative where there is none."""
        valid = tags >= 0
        number = (valid.flatten().cumsum(0) - 1).view_as(valid)
        real = edges[..., 0] >= 0
        ends = number.gather(1, edges.clamp_min(0).flatten(1)).view_as(edges)[real]
        owner, place = valid.nonzero(as_tuple=True)
        return cls(ends.T, owner, place, valid)

    @property
    def degrees(self) -> Tensor:
        """Edges that leave each node, (nodes,) int64."""
        return torch.bincount(self.edges[0], minlength=len(self.owner))

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """(nodes, …) as (batch, longest, …)."""
        out = x.new_full((*self.valid.shape, *x.shape[1:]), value)
        return torch.index_put(out, (self.owner, self.place), x)

    def mean(self, x: Tensor) -> Tensor:
        """Of the nodes (nodes, channels) of each graph, (batch, channels)."""
        sums = x.new_zeros(len(self.valid), x.shape[1]).index_add(0, self.owner, x)
        return sums / self.valid.sum(1).clamp_min(1)[:, None]


class GatedGCN(nn.Module):
    """Messages weighed by a gate that each edge learns (Bresson and Laurent, arXiv 1711.07553, as in GraphGPS).

    Args:
        channels: of nodes and edges.
        dropout: of what is added to both.
        edges_too: say something of the edges too; False: of the nodes alone, behind which no layer looks at edges.
    """

    def __init__(self, channels: int, dropout: float = 0.0, edges_too: bool = True):
        super().__init__()
        for name in "ABCDE":
            self.add_module(name, nn.Linear(channels, channels))
        self.bn_node_x, self.bn_edge_e = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels) if edges_too else None
        self.dropout = dropout

    def forward(self, x: Tensor, edge: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Nodes (nodes, channels) and edges (edges, channels) to the same."""
        source, target = graphs.edges
        said = self.D(x)[target] + self.E(x)[source] + self.C(edge)
        gate = said.sigmoid()
        message, weight = gate * self.B(x)[source], torch.zeros_like(x, dtype=gate.dtype).index_add(0, target, gate)
        heard = torch.zeros_like(x, dtype=message.dtype).index_add(0, target, message) / (weight + 1e-6)
        new = F.dropout(F.relu(self.bn_node_x(self.A(x) + heard)), self.dropout, self.training)
        if self.bn_edge_e is None:
            return x + new, edge
        return x + new, edge + F.dropout(F.relu(self.bn_edge_e(said)), self.dropout, self.training)


class GINE(nn.Module):
    """Sums of what neighbours and edges say, through two layers (Hu et al., arXiv 1905.12265, as in PyTorch Geometric)."""

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.register_buffer("eps", torch.zeros(1))
        self.dropout = dropout

    def forward(self, x: Tensor, edge: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """As GatedGCN.forward; the edges stay as they are."""
        source, target = graphs.edges
        heard = torch.zeros_like(x).index_add(0, target, F.relu(x[source] + edge))
        return x + F.dropout(self.nn((1 + self.eps) * x + heard), self.dropout, self.training), edge


class GPSLayer(nn.Module):
    """Neighbours and all nodes of a graph, then a layer of its own for each node.

    Args:
        dim_h: channels.
        local: "CustomGatedGCN", "GINE" or "None".
        order: of ORDERS; None: no Mamba. "degree_noise" sorts the nodes by degree and noise below 1, "random" mixes them: outside
            training REPEATS such orders are averaged, always the same.
        mixer: of MIXERS, which has 16 states, 4 taps and as many inner channels as outer ones unless it says otherwise.
        dropout: of each branch and of the layer behind them.
        edges_too: see GatedGCN.
    """

    def __init__(
        self, dim_h: int, local: str = "CustomGatedGCN", order: str | None = "degree_noise", mixer: str = "", dropout: float = 0.0,
        edges_too: bool = True, backend: str = "auto",
    ):  # fmt: skip
        super().__init__()
        check_choice("local", local, ("CustomGatedGCN", "GINE", "None"))
        check_choice("mixer", mixer, MIXERS)
        if order is not None:
            check_choice("order", order, ORDERS)
        self.order, self.dropout = order, dropout
        makers = {"CustomGatedGCN": lambda: GatedGCN(dim_h, dropout, edges_too), "GINE": lambda: GINE(dim_h, dropout)}
        self.local_model = makers.get(local, lambda: None)()
        self.self_attn = None
        if order is not None:
            form = {"d_state": 16, "d_conv": 4, "expand": 1, **MIXERS[mixer]}
            self.self_attn = Mamba(dim_h, backend=backend, **form)
        self.norm1_local, self.norm1_attn, self.norm2 = (nn.BatchNorm1d(dim_h) for _ in range(3))
        self.ff_linear1, self.ff_linear2 = nn.Linear(dim_h, 2 * dim_h), nn.Linear(2 * dim_h, dim_h)

    def forward(
        self, x: Tensor, edge: Tensor, graphs: Graphs, noise: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Nodes (nodes, dim_h) and edges (edges, dim_h) to the same; noise: (nodes,) for each order, None: its own."""
        given, x = x, 0
        if self.local_model is not None:
            local, edge = self.local_model(given, edge, graphs)
            x = self.norm1_local(local)
        if self.self_attn is not None:
            x = x + self.norm1_attn(given + self._dropped(self._mixed(given, graphs, noise)))
        hidden = self._dropped(F.relu(self.ff_linear1(x)))
        return self.norm2(x + self._dropped(self.ff_linear2(hidden))), edge

    def _mixed(self, x: Tensor, graphs: Graphs, noise: Sequence[Tensor] | None) -> Tensor:
        orders = orders_of(graphs, self.order, self.training, noise)
        dense = graphs.padded(x)
        if orders is None:
            return self.self_attn(dense)[0][graphs.owner, graphs.place]
        total = 0
        for order in orders:
            index = order[..., None].expand_as(dense)
            walked = self.self_attn(dense.gather(1, index))[0]
            total = total + torch.zeros_like(walked).scatter(1, index, walked)
        return (total / len(orders))[graphs.owner, graphs.place]

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@torch.no_grad()
def orders_of(graphs: Graphs, order: str, training: bool, noise: Sequence[Tensor] | None = None) -> list[Tensor] | None:
    """The places of each graph in the order in which they are read, (batch, longest) int64 each, what is no node last.

    In training one order is drawn; otherwise there are REPEATS of them where chance has a part in it, always the same.
    """
    if order == "as_given":
        return None
    if order == "degree":
        noise = [torch.zeros(len(graphs.owner))]
    elif noise is None:
        noise = [torch.rand(len(graphs.owner))] if training else [_steady(graphs, number) for number in range(REPEATS)]
    degrees, found = graphs.degrees if order != "random" else torch.zeros_like(graphs.owner), []
    for each in noise:
        key = graphs.padded(degree_key(degrees, each.to(degrees.device)), torch.inf)
        found.append(order_by(key)[:, 0].long())
    return found


@torch.compiler.disable  # Dynamo knows no generators
def _steady(graphs: Graphs, number: int) -> Tensor:
    """Noise below 1 that depends on a node's number in its graph alone."""
    longest = graphs.valid.shape[1]
    table = torch.rand(longest, generator=torch.Generator().manual_seed(1000 + number), dtype=torch.float64)
    return table.to(graphs.place.device)[graphs.place]
