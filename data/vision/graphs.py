"""Graphs: what all of their data sets share, and trees with a motif that are made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ...core.ranges import Count, Seed, Size, checked
from ..loading import Loading
from ..module import Description
from ..randomness import hashed
from .labelled import Labelled
from .sources import GRAPH_MOTIFS

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """tags: (nodes,) int64. edges: (edges, 2) int64, each both ways."""

    tags: np.ndarray
    edges: np.ndarray

    def walks(self, steps: int) -> np.ndarray:
        """How likely a random walk from each node is back there after 1 to `steps` steps, float32 (nodes, steps)."""
        count = len(self.tags)
        step = np.zeros((count, count))
        step[self.edges[:, 0], self.edges[:, 1]] = 1
        step /= np.maximum(step.sum(1, keepdims=True), 1)
        found, power = np.empty((count, steps), np.float32), np.eye(count)
        for number in range(steps):
            power = power @ step
            found[:, number] = power.diagonal()
        return found


@dataclass(frozen=True)
class GraphPart:
    """graphs and, for each, its walks; labels: int64 (samples,)."""

    graphs: Sequence[Graph]
    walks: Sequence[np.ndarray]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> GraphPart:
        """The samples at these positions, (count,)."""
        chosen = [int(each) for each in positions]
        walks = [self.walks[each] for each in chosen]
        return GraphPart([self.graphs[each] for each in chosen], walks, self.labels[torch.from_numpy(positions)])


class GraphData(Labelled):
    """Base of the data modules of graphs: a subclass says where they come from, with `load()`.

    Batches are the nodes' tags (batch, nodes) int64, -1 where a graph has fewer nodes, what random walks say of them (batch, nodes,
    steps) float32, edges (batch, edges, 2) int64, each both ways, -1 where there are fewer, and labels (batch) int64.

    Args:
        name, loading, split_seed: see `Labelled`.
        walks: steps of the random walks; how likely one is back after each says where in the graph a node is.
    """

    what = "graphs"
    classes: Sequence[str]
    tags: int  # kinds of nodes

    def __init__(self, name: str, loading: Loading, walks: int, split_seed: int):
        super().__init__(name, loading, split_seed)
        self.walks = walks

    def part(self, graphs: Sequence[Graph], labels: np.ndarray) -> GraphPart:
        """Graphs with their walks."""
        return GraphPart(graphs, [each.walks(self.walks) for each in graphs], torch.from_numpy(labels.astype(np.int64)))

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """See the class."""
        part = self.splits[split].take(positions)
        tags, walks, edges = (
            [each.tags for each in part.graphs], part.walks, [each.edges for each in part.graphs]
        )  # fmt: skip
        return _padded(tags, -1), _padded(walks, 0), _padded(edges, -1), part.labels

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        nodes = [len(each.tags) for part in self.splits.values() for each in part.graphs]
        return self.described(
            shape=f"{np.mean(nodes):.1f} nodes on average, {max(nodes)} at most, {len(self.classes)} classes",
            for_model={
                "tags": self.tags,
                "walks": self.walks,
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "model_size": "micro",
            },
            values=(self.walks + 1) * max(nodes),
            length=max(nodes),
        )


class GraphMotifs(GraphData):
    """Random trees, to a node of which one of five motifs is tied: a ring, a house, a clique, a wheel or a ladder.

    Args:
        loading, walks: see `GraphData`.
        least, most: nodes of a tree.
        extra: edges between any two nodes beside these.
        train, val, test: graphs of each part, of all classes in turn.
        data_seed: seed of the graphs; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = GRAPH_MOTIFS
    tags = 1

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=32),
        walks: Size = 8,
        least: Size = 8,
        most: Size = 24,
        extra: Count = 2,
        train: Size = 1000,
        val: Size = 200,
        test: Size = 400,
        data_seed: Seed = 0,
        split_seed: Seed = 0,
        name: str = "graph_motifs",
    ):
        super().__init__(name, loading, walks, split_seed)
        self.least, self.most, self.extra, self.data_seed = least, max(least, most), extra, data_seed
        self.counts, self.classes = {"train": train, "val": val, "test": test}, tuple(MOTIFS)

    def load(self) -> dict[str, GraphPart]:
        """Make the graphs; see `Labelled.load`."""
        return {
            split: self.part([self._graph(part, each) for each in range(count)], np.arange(count) % len(MOTIFS))
            for part, (split, count) in enumerate(self.counts.items())
        }

    def _graph(self, part: int, number: int) -> Graph:
        random = np.random.default_rng(hashed(self.data_seed, part, number).item())
        motif = list(MOTIFS.values())[number % len(MOTIFS)]()
        tree = int(random.integers(self.least, self.most + 1))
        edges = [(int(random.integers(each)), each) for each in range(1, tree)]
        size = 1 + max(map(max, motif))
        edges += [(tree + one, tree + other) for one, other in motif]
        edges.append((int(random.integers(tree)), tree + int(random.integers(size))))
        edges += [tuple(map(int, random.choice(tree, 2, replace=False))) for _ in range(self.extra)] if tree > 1 else []
        return made(np.zeros(tree + size, np.int64), edges, random.permutation(tree + size))


def made(tags: np.ndarray, edges: Sequence[tuple[int, int]], renamed: np.ndarray | None = None) -> Graph:
    """A graph of edges that are named one way or both, once each, without loops; `renamed`: a new number for each node."""
    pairs = np.array(sorted({(min(pair), max(pair)) for pair in edges if pair[0] != pair[1]}), np.int64).reshape(-1, 2)
    if renamed is not None:
        new = np.empty_like(tags)
        new[renamed] = tags
        tags, pairs = new, renamed[pairs]
    return Graph(tags, np.concatenate([pairs, pairs[:, ::-1]]))


def _padded(samples: Sequence[np.ndarray], value: float) -> torch.Tensor:
    longest = max(map(len, samples))
    out = np.full((len(samples), longest, *samples[0].shape[1:]), value, samples[0].dtype)
    for row, sample in zip(out, samples, strict=True):
        row[: len(sample)] = sample
    return torch.from_numpy(out)


def _ring() -> list[tuple[int, int]]:
    return [(each, (each + 1) % 6) for each in range(6)]


def _ladder() -> list[tuple[int, int]]:
    return [*((each, each + 1) for each in (0, 1, 3, 4)), *((each, each + 3) for each in range(3))]


MOTIFS: dict[str, Callable[[], list[tuple[int, int]]]] = {
    "ring": _ring,
    "house": lambda: [(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)],
    "clique": lambda: list(combinations(range(5), 2)),
    "wheel": lambda: [*((each, (each + 1) % 5) for each in range(5)), *((each, 5) for each in range(5))],
    "ladder": _ladder,
}
