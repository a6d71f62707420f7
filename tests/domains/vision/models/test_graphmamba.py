"""Graph-Mamba's layer against its original; messages, orders and padding against their definitions."""

import pytest
import torch

from polymamba.domains.vision.models.graph_layers import GINE, GatedGCN, GPSLayer, Graphs, orders_of
from polymamba.domains.vision.models.graphmamba import GraphMamba


def three_graphs(meta):
    sizes = torch.tensor(meta["graph_sizes"])
    place = torch.cat([torch.arange(size) for size in sizes])
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return Graphs(torch.tensor(meta["edge_index"]), owner, place, torch.arange(sizes.max())[None] < sizes[:, None])


def test_matches_the_original(golden):
    layer = golden.fill(GPSLayer(32, "None", "as_given"))
    graphs = three_graphs(golden.meta_of("graph_mamba_plain"))
    with torch.no_grad():
        found, _ = layer(golden.seeded(27, 32), golden.seeded(86, 32, seed=9), graphs)
    found = golden.compare("graph_mamba_plain", found, layer)
    assert max(found["errors"]) < 1e-5
    assert not found["missing"] + found["extra"] + found["shapes"]
    assert found["parameters"][0] == found["parameters"][1]


def batch(seed=0):
    """Two graphs, a path of 3 nodes and a star of 5."""
    torch.manual_seed(seed)
    tags = torch.tensor([[0, 1, 0, -1, -1], [1, 0, 0, 0, 0]])
    path, star = [(0, 1), (1, 2)], [(0, each) for each in range(1, 5)]
    edges = [[*one, *((b, a) for a, b in one)] for one in (path, star)]
    padded = torch.full((2, 8, 2), -1)
    for row, pairs in zip(padded, edges, strict=True):
        row[: len(pairs)] = torch.tensor(pairs)
    return tags, torch.rand(2, 5, 4), padded


def test_which_node_belongs_where():
    tags, _, edges = batch()
    graphs = Graphs.of(tags, edges)
    assert graphs.owner.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert graphs.place.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert graphs.degrees.tolist() == [1, 2, 1, 4, 1, 1, 1, 1]
    assert {(3, 4), (7, 3), (1, 2)} <= set(map(tuple, graphs.edges.T.tolist()))
    x = torch.randn(8, 2)
    torch.testing.assert_close(graphs.mean(x), torch.stack([x[:3].mean(0), x[3:].mean(0)]))
    assert graphs.padded(x)[0, 3:].abs().sum() == 0
    assert torch.equal(graphs.padded(x)[graphs.owner, graphs.place], x)


def test_orders():
    graphs = Graphs.of(*batch()[::2])
    [plain] = orders_of(graphs, "degree", training=False)
    assert plain.tolist() == [[0, 2, 1, 3, 4], [1, 2, 3, 4, 0]]
    torch.manual_seed(1)
    [drawn] = orders_of(graphs, "degree_noise", training=True)
    assert drawn[0, 2:].tolist() == [1, 3, 4]
    assert drawn[1, 4] == 0
    steady = orders_of(graphs, "degree_noise", training=False)
    assert len(steady) == 5
    assert all(map(torch.equal, steady, orders_of(graphs, "degree_noise", training=False)))
    mixed = orders_of(graphs, "random", training=False)
    assert {each[1, 4].item() for each in mixed} != {0}
    assert all(each[0, :3].sort().values.tolist() == [0, 1, 2] for each in mixed)
    assert orders_of(graphs, "as_given", training=True) is None


def test_gated_messages_against_a_loop():
    torch.manual_seed(2)
    layer, graphs = GatedGCN(4).double().eval(), Graphs.of(*batch()[::2])
    x, edge = torch.randn(8, 4).double(), torch.randn(graphs.edges.shape[1], 4).double()
    new, said = layer(x, edge, graphs)
    for node in range(8):
        above, below = torch.zeros(4).double(), torch.full((4,), 1e-6).double()
        for number, (source, target) in enumerate(graphs.edges.T.tolist()):
            if target == node:
                gate = (layer.D(x[node]) + layer.E(x[source]) + layer.C(edge[number])).sigmoid()
                above, below = above + gate * layer.B(x[source]), below + gate
        expected = x[node] + layer.bn_node_x((layer.A(x[node]) + above / below)[None])[0].relu()
        torch.testing.assert_close(new[node], expected)
    assert said.shape == edge.shape
    torch.testing.assert_close(GatedGCN(4, edges_too=False).double()(x, edge, graphs)[1], edge)


def test_summed_messages_against_a_loop():
    torch.manual_seed(3)
    layer, graphs = GINE(4).double(), Graphs.of(*batch()[::2])
    x, edge = torch.randn(8, 4).double(), torch.randn(graphs.edges.shape[1], 4).double()
    heard = torch.zeros_like(x)
    for number, (source, target) in enumerate(graphs.edges.T.tolist()):
        heard[target] += (x[source] + edge[number]).relu()
    torch.testing.assert_close(layer(x, edge, graphs)[0], x + layer.nn(x + heard))


@pytest.mark.parametrize("order", ["degree_noise", "degree", "random", "as_given", None])
@pytest.mark.parametrize("local", ["CustomGatedGCN", "GINE"])
def test_padding_and_the_other_graphs_do_not_matter(order, local):
    model = GraphMamba(2, 4, 3, dim_h=8, depth=2, local=local, order=order).double().eval()
    tags, walks, edges = batch()
    together = model(tags, walks.double(), edges)
    alone = model(tags[:1, :3], walks[:1, :3].double(), edges[:1, :4])
    torch.testing.assert_close(together[:1], alone)
    wider = model(
        torch.cat([tags, tags.new_full((2, 3), -1)], 1), torch.cat([walks, torch.ones(2, 3, 4)], 1).double(), edges
    )
    torch.testing.assert_close(wider, together)


def test_names_of_nodes_do_not_matter_where_degrees_differ():
    model = GraphMamba(2, 4, 3, dim_h=8, depth=2, order="degree").double().eval()
    tags, walks, _ = batch()
    edges = torch.tensor(
        [[[0, 1], [1, 0], [1, 2], [2, 1], [1, 3], [3, 1], [2, 3], [3, 2], [3, 4], [4, 3], [1, 4], [4, 1]]]
    )
    edges = torch.cat([edges, torch.tensor([[[2, 4], [4, 2]]])], 1)  # degrees 1, 4, 3, 3, 3
    tags, walks = torch.zeros(1, 5, dtype=torch.long), walks[:1].double()
    walks[:, 2:] = walks[:, 2:3]  # the three of equal degree are alike
    new = torch.tensor([3, 0, 4, 2, 1])
    renamed = torch.empty_like(walks)
    renamed[:, new] = walks
    torch.testing.assert_close(model(tags, walks, edges), model(tags, renamed, new[edges]))


def test_graphs_of_one_node_and_of_no_edges():
    model = GraphMamba(1, 4, 3, dim_h=8, depth=1).eval()
    found = model(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 1, 4), torch.full((2, 0, 2), -1))
    assert found.isfinite().all()


@pytest.mark.parametrize("mixer", ["2", "4", "SmallConv", "SmallState"])
def test_other_mixers(mixer):
    layer = GPSLayer(8, "None", "degree", mixer)
    form = {"2": (8, 4, 16), "4": (4, 4, 32), "SmallConv": (16, 2, 8), "SmallState": (8, 4, 8)}[mixer]
    assert (layer.self_attn.d_state, layer.self_attn.d_conv, layer.self_attn.d_inner) == form
