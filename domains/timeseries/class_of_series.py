"""The classes of series and what they rest on: `predict.py ckpt=<run of task=classification> input=heartbeats.ts`."""

from __future__ import annotations

from pathlib import Path

import torch

from ...core.errors import UserError
from ...core.pictures import INK, RIGHT, WRONG, save_figure
from ..classification import likeliest, write_table
from ..trained import Answer, Trained
from .classification import draw_series
from .explanation import Explained, draw_explained, explain_windows

SHOWN = 12  # series that are printed


def name_series(run: Trained, input: str | None, explain: str | None, top: int, pictures: int, target: Path) -> Answer:
    """Names the class of each series of a file, or of the test part; see predict.predict.

    Raises:
        UserError: a file that cannot be read, a model without hidden attention to explain with.
    """
    if target.suffix != ".csv":
        raise UserError("classes are written as .csv", given=f"output={target}")
    data = run.data
    data.setup()
    values, labels = data.splits["test"] if input is None else data.of_file(Path(input).expanduser())
    target.parent.mkdir(parents=True, exist_ok=True)
    weight = next(run.model.parameters())
    if explain is not None:
        some = values[: max(pictures, 1)].to(weight)
        found = Explained(
            *(None if part is None else part.cpu() for part in explain_windows(run.model, some, None, explain))
        )
        picture = target.parent / f"explained_{explain}.png"
        titles = [f"series {number + 1}" for number in range(len(some))]
        save_figure(draw_explained(some.cpu(), found, titles, heading=f"What the classes rest on ({explain})"), picture)
        return Answer([], [picture])
    with torch.no_grad():
        logits = torch.cat([run.model(part.to(weight)).cpu() for part in values.split(data.loading.batch_size)])
    found = likeliest(logits, run.describe["classes"], top)
    write_table(target, "series", [(number + 1, each) for number, each in enumerate(found)])
    lines = [f"  series {number + 1:<6} {each.line}" for number, each in enumerate(found[:SHOWN])]
    lines += [f"  … and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
    right = (logits.argmax(1) == labels)[labels >= 0]
    lines += (
        [f"  {right.float().mean():.1%} of {len(right):,} series with a label are named as it is"] if len(right) else []
    )
    files = [target]
    if pictures:
        files.append(target.with_suffix(".png"))
        colours = [
            INK if label < 0 else RIGHT if label == said else WRONG
            for label, said in zip(labels, logits.argmax(1), strict=True)
        ]
        titles = [
            f"{number + 1}: {each.names[0]} {each.confidences[0]:.0%}" for number, each in enumerate(found[:pictures])
        ]
        save_figure(draw_series("Classes of series", list(values[:pictures]), titles, colours[:pictures]), files[-1])
    return Answer(lines, files)
