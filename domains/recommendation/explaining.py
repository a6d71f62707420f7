"""Which past events an answer rests on: how much the score of the best item falls without each of them, or hidden attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.explanation import METHODS as MAPS
from ...core.explanation import explain, part_in_answer
from ...core.pictures import FAINT, RIGHT, WRONG
from ..trained import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("occlusion", *MAPS)
EVENTS = 20  # in the picture, the latest


@torch.inference_mode()
def occlusion(
    model: Any, items: Tensor, times: Tensor | None, features: Any, target: int | None = None
) -> tuple[int, Tensor]:
    """How much an item's score, as logarithm of its share of all, falls when an event is taken out of the history.

    Args:
        items: (events,) int64, without padding; times, features: the same of them.
        target: the item; None: the best.

    Returns:
        the item, and (events,) falls; a negative one: the event spoke against it.
    """
    count = len(items)
    kept = torch.stack([torch.cat([torch.arange(count)[:one], torch.arange(count)[one + 1 :]]) for one in range(count)])
    kept = kept.to(items.device)

    def said(take: Tensor) -> Tensor:
        inputs = None if features is None else {name: each[take] for name, each in features.items()}
        hidden = model.encode(items[take], times=None if times is None else times[take], features=inputs)
        return model.scores(hidden)[:, 1:].float().log_softmax(1)

    whole = said(torch.arange(count, device=items.device)[None])[0]
    target = int(whole.argmax()) + 1 if target is None else target
    return target, whole[target - 1] - said(kept)[:, target - 1]


def hidden_attention(model: Any, items: Tensor, times: Tensor | None, features: Any, method: str) -> tuple[int, Tensor]:
    """What the last hidden state takes from each event, by the matrices that the mixers multiply by (core.explanation).

    Args:
        items, times, features: as of `occlusion`. method: one of core.explanation.METHODS.

    Returns:
        the best item, and (events,) parts; the last event's in itself, which residuals make the largest by far, is 0.

    Raises:
        UserError: the model does not read events in their order, or has no mixers of the core.
    """
    if not model.causal:
        raise UserError(
            "this model does not read the events in their order alone",
            given=type(model).__name__,
            do="explain=occlusion",
        )
    beside = {
        "times": None if times is None else times[None],
        "features": None if features is None else {name: each[None] for name, each in features.items()},
    }
    with torch.no_grad():
        best = int(model.scores(model.encode(items[None], **beside))[0, 1:].argmax()) + 1
    score = (lambda said: model.scores(said[0][:, -1])[0, best]) if method == "attribution" else None
    return best, part_in_answer(explain(model, items[None], method=method, score=score, **beside), [-1])[0].detach()


def draw_reasons(run: Trained, log: Any, users: np.ndarray, method: str = "occlusion") -> tuple[Figure, list[str]]:
    """A picture of the latest events of some users and how much the best item rests on each, and the same in a line a user.

    Args:
        method: one of METHODS.
    """
    from matplotlib.figure import Figure

    name = run.describe["catalogue"].name
    users = np.array([each for each in users.tolist() if log.offsets[each + 1] > log.offsets[each]], np.int64)
    figure = Figure(figsize=(9, 1 + 2.4 * len(users)), layout="constrained", dpi=120)
    lines = []
    for axes, user in zip(np.atleast_1d(figure.subplots(len(users), 1)), users.tolist(), strict=True):
        items, _, times, features = run.task.inputs(run.data.whole(log, np.array([user])))
        features = None if features is None else {key: each[0].to(run.device) for key, each in features.items()}
        own = items[0].to(run.device)
        of_events = (run.model, own, None if times is None else times[0].to(run.device), features)
        best, falls = occlusion(*of_events) if method == "occlusion" else hidden_attention(*of_events, method)
        names, falls = [name(each) for each in own.tolist()][-EVENTS:], falls.cpu()[-EVENTS:]
        axes.bar(range(len(names)), falls.tolist(), color=[RIGHT if each > 0 else WRONG for each in falls.tolist()])
        axes.set_xticks(range(len(names)), [each[:16] for each in names], rotation=60, ha="right", fontsize=7)
        axes.axhline(0, color=FAINT, linewidth=0.5)
        axes.set_title(f"user {log.user_id(user)}: {name(best)} rests on", fontsize=9)
        strongest = int(falls.argmax())
        lines.append(
            f"  {log.user_id(user)}: {name(best)}, most of all for {names[strongest]} ({float(falls[strongest]):+.2f})"
        )
    return figure, lines
