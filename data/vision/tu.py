"""The TU data sets of graphs: molecules, proteins and networks of people, in ten folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ...core.errors import UserError, check_choice
from ...core.ranges import Count, Fraction, Seed, Size, checked
from ..files import check_content, data_root, find, not_there, read
from ..loading import Loading
from .graphs import Graph, GraphData, GraphPart, made
from .sources import TU as SOURCE

SETS = {
    "mutag": "MUTAG",
    "ptc": "PTC",
    "enzymes": "ENZYMES",
    "proteins": "PROTEINS",
    "nci1": "NCI1",
    "imdb_binary": "IMDBBINARY",
}
FOLDS = 10
MOST_DEGREE = 64  # of graphs whose nodes have no tags, the degree up to here is one


class TU(GraphData):
    """A TU data set, by the ten folds of its usual comparison (those of DGCNN's repository); read from the data root.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files NAME.txt and 10fold_idx.json lie in
            graphs/TU/NAME, TU/NAME or NAME, each plain or packed.
        set: "mutag", "ptc", "enzymes", "proteins", "nci1" or "imdb_binary".
        fold: the fold that is tested, 0 to 9.
        loading, walks, split_seed: see `GraphData`.
        val_fraction: share of the other folds that is used for validation, in each class.
        name: the data set's name in results; None: the set's and the fold.
    """

    source = SOURCE

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        set: Literal["mutag", "ptc", "enzymes", "proteins", "nci1", "imdb_binary"] = "mutag",
        fold: Count = 0,
        loading: Loading = Loading(batch_size=32),
        walks: Size = 16,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str | None = None,
    ):
        check_choice("data.set", set, SETS, "TU set")
        super().__init__(name or f"{set}_fold{fold}", loading, walks, split_seed)
        if fold >= FOLDS:
            raise UserError("there is no such fold", given=f"data.fold={fold}", allowed="0 to 9")
        self.root, self.set, self.fold, self.val_fraction = data_root(root), SETS[set], fold, val_fraction

    def load(self) -> dict[str, GraphPart]:
        """Read the graphs and the folds and check their sha256; see `Labelled.load`."""
        name = f"{self.set}.txt"
        path, content = self._read(name)
        graphs, labels, self.tags = parsed(path, content.decode())
        known = sorted(set(labels))
        self.classes = tuple(f"class {label}" for label in known)
        whole = self.part(graphs, np.array([known.index(label) for label in labels]))
        folds = json.loads(self._read("10fold_idx.json", f"{self.set}/10fold_idx.json")[1])
        rest, test = (whole.take(np.array(folds[self.fold][part])) for part in ("train", "test"))
        train, val = self._divided(rest, self.val_fraction)
        return {"train": train, "val": val, "test": test}

    def _read(self, name: str, known_as: str | None = None) -> tuple[Path, bytes]:
        folders = [self.root / part / self.set for part in (self.source.folder, "TU", "")]
        path = find(folders, name)
        if path is None:
            raise not_there(f"{self.set}'s {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.content_sha256(known_as or name))
        return path, content


def parsed(path: Path, text: str) -> tuple[list[Graph], list[int], int]:
    """The graphs in a text of blocks, their labels, and the kinds of nodes.

    A block is a line "nodes label" and for each node a line "tag neighbours" with the neighbours' numbers behind it.

    Raises:
        UserError: naming the line that is wrong.
    """
    lines = iter(enumerate(text.splitlines(), 1))
    number, graphs, labels, seen = 1, [], [], {}
    try:
        number, line = next(lines)
        for _ in range(int(line)):
            number, line = next(lines)
            nodes, label = map(int, line.split()[:2])
            tags, edges = np.empty(nodes, np.int64), []
            for node in range(nodes):
                number, line = next(lines)
                tag, count, *others = line.split()
                tags[node] = seen.setdefault(int(tag), len(seen))
                edges += _neighbours(node, int(count), others, nodes)
            graphs.append(made(tags, edges))
            labels.append(label)
    except (ValueError, StopIteration) as error:
        raise UserError(
            f"{path} is no file of graphs", given=f"line {number}: {error or 'it ends too soon'}"
        ) from error
    if len(seen) == 1:
        return [_with_degrees(each) for each in graphs], labels, MOST_DEGREE + 1
    return graphs, labels, len(seen)


def _neighbours(node: int, count: int, others: Sequence[str], nodes: int) -> list[tuple[int, int]]:
    found = [(node, int(other)) for other in others[:count]]
    if len(found) != count or any(not 0 <= other < nodes for _, other in found):
        raise ValueError(f"{count} neighbours below {nodes} are expected")
    return found


def _with_degrees(graph: Graph) -> Graph:
    degrees = np.bincount(graph.edges[:, 0], minlength=len(graph.tags))
    return Graph(np.minimum(degrees, MOST_DEGREE), graph.edges)
