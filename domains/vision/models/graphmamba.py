"""Graph-Mamba (arXiv 2402.00789): messages between neighbours beside a Mamba over all nodes, the best connected ones last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.initialisation import scale_output_projections
from ....core.ranges import Depth, Rate, Size, checked
from .backbone import size_for
from .graph_layers import GPSLayer, Graphs

SIZES = {
    "micro": {"dim_h": 48, "depth": 3},
    "full": {"dim_h": 96, "depth": 4},
}


class GraphMamba(nn.Module):
    """A classifier of graphs.

    Args:
        tags: kinds of nodes. walks: what each node says of random walks from it. num_classes: outputs.
        dim_h, depth: width and number of layers.
        local, order, mixer, dropout, backend: see GPSLayer.
    """

    @checked
    def __init__(
        self,
        tags: Size,
        walks: Size,
        num_classes: Size,
        dim_h: Size = 96,
        depth: Depth = 4,
        local: str = "CustomGatedGCN",
        order: str | None = "degree_noise",
        mixer: str = "",
        dropout: Rate = 0.0,
        backend: str = "auto",
    ):
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        self.node_encoder, self.edge_encoder = nn.Embedding(tags, dim_h), nn.Embedding(1, dim_h)
        self.pe_norm, self.pe_encoder = nn.BatchNorm1d(walks), nn.Linear(walks, dim_h)
        self.layers = nn.ModuleList(
            GPSLayer(dim_h, local, order, mixer, dropout, edges_too=number + 1 < depth, backend=backend)
            for number in range(depth)
        )
        if local == "None":  # the original has this norm all the same
            for layer in self.layers:
                layer.norm1_local.requires_grad_(False)
        widths = [dim_h, dim_h // 2, dim_h // 4, num_classes]
        self.post_mp = nn.Module()
        self.post_mp.FC_layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        scale_output_projections(self, depth)

    def forward(self, tags: Tensor, walks: Tensor, edges: Tensor) -> Tensor:
        """A batch of padded graphs to class scores (batch, num_classes).

        Args:
            tags: (batch, nodes) int64, -1 where a graph has fewer nodes.
            walks: (batch, nodes, walks), how likely a random walk is back after 1, 2, … steps.
            edges: (batch, edges, 2) int64, both ways, -1 where there are fewer.
        """
        graphs = Graphs.of(tags, edges)
        x = self.node_encoder(tags[graphs.valid]) + self.pe_encoder(self.pe_norm(walks[graphs.valid]))
        edge = self.edge_encoder(torch.zeros_like(graphs.edges[0]))
        for layer in self.layers:
            x, edge = layer(x, edge, graphs)
        x = graphs.mean(x)
        for layer in self.post_mp.FC_layers[:-1]:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)
        return self.post_mp.FC_layers[-1](x)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm."""
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in ("A_log", "D")}


@checked(group="model")
def build(
    describe: Mapping,
    size: Literal["micro", "full"] | None = None,
    dim_h: Size | None = None,
    depth: Depth | None = None,
    local: Literal["CustomGatedGCN", "GINE", "None"] = "CustomGatedGCN",
    order: Literal["degree_noise", "degree", "random", "as_given"] | None = "degree_noise",
    mixer: Literal["", "2", "4", "SmallConv", "SmallState"] = "",
    dropout: Rate = 0.0,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> GraphMamba:
    """A Graph-Mamba for a data set of graphs.

    Args:
        describe: the data set's own description: tags, walks, num_classes, model_size.
        size: "micro" or "full"; None: what the data set asks for. dim_h, depth: other than the size's.
        The others as of GraphMamba.
    """
    chosen = {"dim_h": dim_h, "depth": depth}
    sized = size_for(describe, size, SIZES) | {key: value for key, value in chosen.items() if value is not None}
    return GraphMamba(
        describe["tags"], describe["walks"], describe["num_classes"], local=local, order=order, mixer=mixer, dropout=dropout,
        backend=backend, **sized,
    )  # fmt: skip
