"""Learning from sounds without their names: patches of their spectrograms are hidden and guessed (SSAMBA, arXiv 2405.11831).

The run's weights are the model's alone: `train.py model=aum task=tagging init=<run>` goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.ranges import Share, Size, Weight, checked
from ..task import Task
from .models.aum import AuM
from .models.ssamba import Guessed, MaskedPatches, clusters
from .spectrograms import draw_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST, COLUMNS = 8, 4  # sounds in the picture of the first batch


class Pretraining(Task):
    """Hidden patches of spectrograms are guessed.

    Batches are sounds (batch, time); labels beside them are not looked at. Validation and test hide the same patches each time.

    Args:
        model: an AuM. describe: of the data: "rate".
        masked: share of the patches that are hidden.
        least, most: patches along the sides of the squares that are hidden.
        reconstruction: weight of the mean square error of what was in them.
        auxiliary: see Task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")
    exact_inputs: ClassVar[bool] = True

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        masked: Share = 0.75,
        least: Size = 3,
        most: Size = 5,
        reconstruction: Weight = 10.0,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        if not isinstance(model, AuM):
            raise UserError("this is for models of patches", given=f"model {type(model).__name__}", do="model=aum")
        if least > most:
            raise UserError("task.least is above task.most", given=f"{least} and {most}")
        self.masked, self.sides, self.reconstruction = masked, (least, most), reconstruction
        self.objective = MaskedPatches(model.cls_token.shape[-1], model.patch_embed.proj.kernel_size)

    def learning(self) -> nn.Module:
        return Together(self.model, self.objective)

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        sounds = self.inputs(batch)[0]
        with torch.random.fork_rng(enabled=stage != "train"):
            if stage != "train":
                torch.manual_seed(0)
            grid = self.model.grid
            count = min(grid.tokens, max(2, round(self.masked * grid.tokens)))
            hidden = clusters(grid.sizes, len(sounds), count, *self.sides).to(sounds.device)
        found: Guessed = self.objective(self.model, self.model.front.levels(sounds), hidden)
        loss = found.contrast + self.reconstruction * found.error
        return loss, {name: value.detach() for name, value in found._asdict().items()}

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage != "train":
            return {}
        sounds = self.inputs(batch)[0][:FIRST]
        named = [(f"sound {number + 1}", sound) for number, sound in enumerate(sounds)]
        rows = [named[start : start + COLUMNS] for start in range(0, len(named), COLUMNS)]
        return {"first_batch": draw_rows(rows, self.describe["rate"], f"First training batch: {len(sounds)} sounds")}


class Together(nn.Module):
    """A model and what it is trained with, for the optimizer."""

    def __init__(self, model: AuM, objective: MaskedPatches):
        super().__init__()
        self.model, self.objective = model, objective

    def no_weight_decay(self) -> set[str]:
        """Positions, and the tokens that stand for something."""
        return {"objective.mask_embed", *(f"model.{name}" for name in self.model.no_weight_decay())}
