"""What all medical data sets share: a plan that is made once and travels with the run, and cases that are prepared by it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..loading import Loading
from ..module import DataModule
from .plan import FILE, Plan
from .volumes import Volumes


class PlannedData(DataModule):
    """A subclass plans with `make_plan` and reads its cases with `load`.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
    """

    tested = "the test part"

    def __init__(self, name: str, loading: Loading):
        super().__init__(name, loading)
        self.plan: Plan | None = None
        self.splits: dict[str, list[Any]] | None = None

    @abstractmethod
    def make_plan(self) -> Plan:
        """The plan of these data, before any case is prepared; raises UserError naming the file that is wrong."""

    @abstractmethod
    def load(self, plan: Plan) -> dict[str, list[Any]]:
        """The cases of train, val and test, prepared by the plan; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """Plan (where no plan was restored) and read the cases, once."""
        if self.splits is not None:
            return
        plan = self.plan or self.make_plan()
        splits = {split: cases[: self.loading.limit] for split, cases in self.load(plan).items()}
        for split, cases in splits.items():
            if not cases:
                raise UserError(f"{self.name} has no {split} cases", do="add cases, or divide them otherwise")
        self.plan, self.splits = plan, splits

    def keep(self, folder: Path) -> None:
        """The plan: predicting needs spacing, intensities and what the numbers of the classes mean."""
        self.setup()
        self.plan.write(folder)

    def restore(self, folder: Path) -> None:
        """See `DataModule.restore`."""
        path = Path(folder) / FILE
        if path.is_file():
            self.plan = Plan.read(path)

    def volumes(self) -> Volumes:
        """What reads and writes files as a model that was trained with the plan needs them; reads no case."""
        if self.plan is None:
            self.plan = self.make_plan()
        return Volumes(self.plan)


def sizes_asked(
    asked: int | Sequence[int] | None, axes: int, otherwise: Sequence[int], setting: str
) -> tuple[int, ...]:
    """The sizes that were asked for with a setting, of so many axes; else those given."""
    if asked is None:
        return tuple(otherwise)
    sizes = (asked,) * axes if isinstance(asked, int) else tuple(asked)
    if len(sizes) != axes:
        raise UserError(f"{setting} does not fit", given=list(sizes), allowed=f"a number, or {axes} numbers")
    return sizes
