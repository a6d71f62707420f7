"""A whole domain in a few files, as a user would add one: points in three classes, a small network."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

FILES = {
    "toy/__init__.py": '"""Points in the plane."""\n',
    "toy/data.py": '''
        """Gaussian points, labelled by the largest of their coordinates."""

        import numpy as np
        import torch

        from polymamba.data.loading import Loading
        from polymamba.data.module import DataModule, Description


        class Points(DataModule):
            """Batches are inputs (batch, 4) and labels (batch,)."""

            def __init__(self, loading: Loading, points: int = 24, name: str = "points"):
                super().__init__(name, loading)
                self.points, self.centre = points, None
                self.inputs = None

            def setup(self, stage=None):
                if self.inputs is None:
                    numbers = torch.Generator().manual_seed(1)
                    self.inputs = {split: torch.randn(self.points, 4, generator=numbers) for split in ("train", "val", "test")}
                if self.centre is None:
                    self.centre = self.inputs["train"].mean(0)

            def samples(self, split):
                return self.points if self.loading.limit is None else min(self.points, self.loading.limit)

            def load_batch(self, split, epoch, positions):
                inputs = self.inputs[split][torch.from_numpy(np.asarray(positions))]
                return inputs - self.centre, inputs[:, :3].argmax(1)

            def describe(self):
                self.setup()
                counts = {split: self.samples(split) for split in ("train", "val", "test")}
                return Description(self.name, counts, "4 numbers, 3 classes", {"features": 4, "num_classes": 3})

            def kept(self):
                return {"centre": self.centre}

            def keep(self, folder):
                folder.mkdir(parents=True, exist_ok=True)
                np.savetxt(folder / "centre.txt", self.centre.numpy())

            def restore(self, folder):
                self.centre = torch.from_numpy(np.loadtxt(folder / "centre.txt", dtype=np.float32))
        ''',
    "toy/model.py": '''
        """A network of one hidden layer."""

        from torch import nn


        def build(describe: dict, hidden: int = 8, dropout: float = 0.1) -> nn.Module:
            layers = nn.Linear(describe["features"], hidden), nn.GELU(), nn.Dropout(dropout)
            return nn.Sequential(*layers, nn.Linear(hidden, describe["num_classes"]))
        ''',
    "toy/task.py": '''
        """Which coordinate is the largest."""

        import matplotlib.pyplot as plt
        from torch.nn import functional as F

        from polymamba.domains.task import Task


        class Largest(Task):
            monitor = ("val/accuracy", "max")

            def step(self, batch, stage):
                inputs, labels = batch
                scores = self.model(inputs)
                return F.cross_entropy(scores, labels), {"accuracy": (scores.argmax(1) == labels).float().mean()}

            def pictures(self, stage, batch=None):
                if stage == "train":
                    figure = plt.figure()
                    figure.add_subplot().scatter(*batch[0][:, :2].cpu().T)
                    return {"first_points": figure}
                return {"said": "a test has ended"} if stage == "test" else {}
        ''',
    "toy/predict.py": '''
        """Which coordinate of points in a text file is the largest."""

        from pathlib import Path

        import numpy as np
        import torch

        from polymamba.core.errors import UserError
        from polymamba.domains.trained import Answer, Trained


        def predict(run: Trained, input: str | None = None, explain: str | None = None) -> Answer:
            if input is None:
                raise UserError("which points?", given="nothing", allowed="input=<a file of four numbers a line>")
            points = torch.from_numpy(np.loadtxt(input, dtype=np.float32, ndmin=2)).to(run.device)
            centre = run.describe["centre"].to(run.device)
            if explain is not None:
                run.model.zero_grad()
                run.model(points - centre).max(1).values.sum().backward()
                return Answer([str([float(each.grad.abs().sum()) for each in run.model.parameters()])])
            with torch.no_grad():
                classes = run.model(points - centre).argmax(1)
            path = run.folder / "classes.txt"
            path.write_text("".join(f"{each}\\n" for each in classes.tolist()))
            return Answer([f"{len(points)} points"], [Path(path)])
        ''',
    "configs/toy/domain.yaml": """
        # @package _global_
        # Points: python train.py domain=toy
        defaults:
          - override /data: points
          - override /model: net
          - override /task: largest

        domain: toy
        """,
    "configs/toy/data/points.yaml": """
        _target_: toy.data.Points
        name: points
        points: 24
        loading:
          batch_size: 4
          seed: ${seed}
        """,
    "configs/toy/model/net.yaml": """
        _target_: toy.model.build
        name: net
        hidden: 8
        dropout: 0.1
        """,
    "configs/toy/task/largest.yaml": """
        _target_: toy.task.Largest
        name: largest
        """,
    "configs/toy/recipe/points.yaml": """
        # @package _global_
        trainer:
          epochs: 2
        """,
    "configs/toy/predict.yaml": """
        _target_: toy.predict.predict
        input: null # a file of four numbers a line
        explain: null
        """,
    "crossing.py": '''
        """What the toy domain has to say."""

        SHORT = DEFAULT = ()
        ODD = (("data.points=1",), ("data.points=7",))
        PICTURES = ("first_points.png", "said.txt")
        EXPLAIN = ("input=points.txt", "explain=gradient")


        def predict(folder):
            (folder / "points.txt").write_text("0 1 2 3\\n3 2 1 0\\n")
            return [("input=points.txt",)]
        ''',
}


def write(folder: Path) -> None:
    """Writes the domain: a package `toy`, its configs, and what it says to the tests."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text).lstrip("\n"), encoding="utf-8")
