"""Graphs made here and the TU sets: motifs, walks, batches, folds, wrong files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import TU, GraphMotifs
from polymamba.data.vision.graphs import MOTIFS, Graph, made
from polymamba.data.vision.tu import parsed

DATA = Path(os.environ.get("POLYMAMBA_DATA", "/nowhere")) / "graphs" / "TU"
SMALL = {"train": 20, "val": 5, "test": 10, "loading": Loading(batch_size=4)}
TEXT = "2\n3 1\n5 1 1\n7 2 0 2\n5 1 1 0.5\n2 -1\n9 1 1\n5 1 0\n"


def test_walks_of_a_path():
    path = made(np.zeros(3, np.int64), [(0, 1), (1, 2)])
    np.testing.assert_allclose(path.walks(4), [[0, 0.5, 0, 0.5], [0, 1, 0, 1], [0, 0.5, 0, 0.5]])
    assert made(np.zeros(2, np.int64), []).walks(2).tolist() == [[0, 0], [0, 0]]


def test_edges_stand_once_and_both_ways():
    graph = made(np.array([4, 5, 6]), [(0, 1), (1, 0), (2, 2), (1, 2)], np.array([2, 0, 1]))
    assert graph.tags.tolist() == [5, 6, 4]
    assert sorted(map(tuple, graph.edges.tolist())) == [(0, 1), (0, 2), (1, 0), (2, 0)]


def test_motifs_hang_on_trees():
    data = GraphMotifs(**SMALL, extra=0)
    data.setup()
    part = data.splits["test"]
    for graph, label in zip(part.graphs, part.labels.tolist(), strict=True):
        motif = list(MOTIFS.values())[label]()
        size = 1 + max(map(max, motif))
        tree = len(graph.tags) - size
        assert len(graph.edges) == 2 * (tree - 1 + len(motif) + 1)
    again = GraphMotifs(**SMALL, extra=0)
    again.setup()
    assert all(np.array_equal(a.edges, b.edges) for a, b in zip(part.graphs, again.splits["test"].graphs, strict=True))


def test_batches_are_padded():
    data = GraphMotifs(**SMALL)
    data.setup()
    tags, walks, edges, labels = data.load_batch("train", 0, np.array([3, 0]))
    assert labels.tolist() == [3, 0]
    assert tags.shape == walks.shape[:2]
    for row, position in zip(range(2), (3, 0), strict=True):
        graph = data.splits["train"].graphs[position]
        count = len(graph.tags)
        assert tags[row, :count].tolist() == graph.tags.tolist()
        assert (tags[row, count:] == -1).all()
        assert walks[row, count:].abs().sum() == 0
        assert edges[row][edges[row, :, 0] >= 0].tolist() == graph.edges.tolist()
    described = data.describe()
    assert described.for_model["tags"] == 1
    assert described.counts == {"train": 20, "val": 5, "test": 10}


def test_blocks_of_text():
    graphs, labels, tags = parsed(Path("x.txt"), TEXT)
    assert labels == [1, -1]
    assert tags == 3
    assert [each.tags.tolist() for each in graphs] == [[0, 1, 0], [2, 0]]
    assert len(graphs[0].edges) == 4
    alike, _, tags = parsed(Path("x.txt"), "1\n3 0\n0 1 1\n0 2 0 2\n0 1 1\n")
    assert tags == 65
    assert alike[0].tags.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("text", "line"),
    [("2\n1 0\n0 0\n", 3), ("x\n", 1), ("1\n2 0\n0 1 5\n0 0\n", 3), ("1\n2 0\n0 2 1\n0 0\n", 3), ("", 1)],
)
def test_the_wrong_line_is_named(text, line):
    with pytest.raises(UserError) as caught:
        parsed(Path("x.txt"), text)
    assert f"line {line}:" in caught.value.given


def test_wrong_settings(tmp_path):
    with pytest.raises(UserError, match="fold"):
        TU(fold=10)
    with pytest.raises(UserError, match="TU set"):
        TU(set="MUTAGG")
    with pytest.raises(UserError, match=r"MUTAG.txt is not there"):
        TU(root=str(tmp_path)).describe()
    (tmp_path / "MUTAG").mkdir()
    (tmp_path / "MUTAG" / "MUTAG.txt").write_text(TEXT)
    with pytest.raises(UserError, match="wrong checksum"):
        TU(root=str(tmp_path)).describe()


@pytest.mark.skipif(not DATA.is_dir(), reason="$POLYMAMBA_DATA holds no TU sets")
@pytest.mark.parametrize(
    ("name", "count", "classes", "tags"), [("mutag", 188, 2, 7), ("ptc", 344, 2, 19), ("imdb_binary", 1000, 2, 65)]
)
def test_tu_sets_as_published(name, count, classes, tags):
    data = TU(set=name, fold=3)
    described = data.describe()
    assert sum(described.counts.values()) == count
    assert described.for_model["num_classes"] == classes
    assert described.for_model["tags"] == tags
    assert described.name == f"{name}_fold3"
    assert torch.equal(data.load_batch("test", 0, np.arange(2))[3], data.splits["test"].labels[:2])
    assert isinstance(data.splits["test"].graphs[0], Graph)
