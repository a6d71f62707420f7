"""The best items for each user, from a run: a table, states that are served one event at a time, likeness, comparison of runs.

predict.py ckpt=<run> input=events.parquet output=top.parquet k=20
predict.py ckpt=saved/SASRec.pth input=events.csv       weights that RecBole has trained (published.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError, check_choice
from ...core.pictures import save_figure
from ...core.ranges import Size, checked
from ..trained import Answer, Trained
from .comparing import compare_runs
from .explaining import METHODS, draw_reasons
from .models.sequential import SequentialModel
from .offers import Offers, write
from .serving import Server
from .top_k import best_items

SHOWN = 10  # users in what is printed
EXPLAINED = 6  # users in the picture


@checked
def predict(
    run: Trained,
    input: str | None = None,
    explain: str | None = None,
    k: Size = 10,
    users: str | None = None,
    filter_seen: bool = True,
    allow: str | None = None,
    similar: str | None = None,
    state: str | None = None,
    compare: str | None = None,
    batch_size: Size = 512,
    output: str | None = None,
    items: str | None = None,
) -> Answer:
    """Ranks items; see configs/recommendation/predict.yaml for the options.

    Raises:
        UserError: a table that cannot be read, ids that nobody knows, options that do not go together.
    """
    if sum(each is not None for each in (similar, state, compare, explain)) > 1:
        raise UserError("one thing at a time", allowed="one of explain=, similar=, state=, compare=")
    if compare is not None:
        return compare_runs(run, Path(compare).expanduser(), batch_size)
    catalogue = run.describe["catalogue"]
    allowed = None if allow is None else _allowed(Path(allow).expanduser(), catalogue).to(run.device)
    if similar is not None:
        return _similar(run, similar, k, allowed)
    log = _read(run, input)
    chosen = _chosen(log, users)
    if explain is not None:
        check_choice("explain", explain, METHODS)
        figure, lines = draw_reasons(run, log, chosen[:EXPLAINED], explain)
        path = run.folder / f"explained_{explain}.png"
        save_figure(figure, path)
        return Answer(lines, [path])
    target = run.folder / "recommendations.csv" if output is None else Path(output).expanduser()
    if target.suffix not in (".csv", ".parquet"):
        raise UserError("answers are written as a table", given=f"output={target}", allowed=".csv, .parquet")
    if state is not None:
        offers = _served(run, log, chosen, Path(state).expanduser(), k, filter_seen, allowed)
    else:
        offers = recommend(run, log, chosen, k, filter_seen, allowed, batch_size)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, offers, catalogue)
    names = [str(log.user_id(each)) for each in chosen[:SHOWN].tolist()]
    width = max(map(len, names), default=0)
    lines = [
        f"  {name:<{width}}  {', '.join(catalogue.name(item) for item in row if item)}"
        for name, row in zip(names, offers.items[:SHOWN].tolist(), strict=True)
    ]
    if len(chosen) > SHOWN:
        lines.append(f"  … and {len(chosen) - SHOWN:,} more users in {target.name}")
    problems = [f"{log.unknown:,} events of items that the model does not know were left out"] if log.unknown else []
    return Answer(lines, [target], problems)


def recommend(
    run: Trained,
    log: Any,
    users: np.ndarray,
    k: int = 10,
    filter_seen: bool = True,
    allowed: Tensor | None = None,
    batch_size: int = 512,
) -> Offers:
    """The best items for users.

    Args:
        log: their events, as the run's data module reads them.
        users: (users,) int64, their numbers in the log.
        k: items for each. filter_seen: no items that the user had. allowed: (items,) int64, ascending: only these.

    A user all of whose events are of unknown items is offered what most training events were of.
    """
    items, scores = [], []
    # users with histories of like length together: little padding
    order = users[np.argsort(np.diff(log.offsets)[users], kind="stable")]
    for begin in range(0, len(order), batch_size):
        part = order[begin : begin + batch_size]
        with torch.inference_mode():
            hidden = encoded(run, log, part)
            best = best_items(
                run.model, hidden, k, hide=seen(run, log, part) if filter_seen else None, candidates=allowed
            )
        items.append(best.items.cpu())
        scores.append(best.scores.float().cpu())
    if not items:
        return Offers([], torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, k))
    back = torch.from_numpy(np.argsort(np.argsort(np.diff(log.offsets)[users], kind="stable"), kind="stable"))
    offers = Offers([log.user_id(each) for each in users.tolist()], torch.cat(items)[back], torch.cat(scores)[back])
    return _popular_for_strangers(run, offers, np.diff(log.offsets)[users] == 0, filter_seen, allowed)


def encoded(run: Trained, log: Any, users: np.ndarray) -> Tensor:
    """(users, channels), what the model makes of all events of these users, the last `length` of each."""
    batch = run.data.whole(log, users)
    inputs = [_moved(each, run.device) for each in run.task.inputs(batch)]
    return run.model.encode(inputs[0], times=inputs[2], features=inputs[3])


def seen(run: Trained, log: Any, users: np.ndarray) -> Tensor:
    """(users, events) int64, all items of these users, 0 where there are fewer."""
    begin, end = log.offsets[users], log.offsets[users + 1]
    place = begin[:, None] + np.arange(max(int((end - begin).max()), 1))
    inside = place < end[:, None]
    return torch.from_numpy(np.where(inside, log.items[np.where(inside, place, 0)] if len(log.items) else 0, 0)).to(
        run.device
    )


def _popular_for_strangers(
    run: Trained, offers: Offers, strangers: np.ndarray, filter_seen: bool, allowed: Tensor | None
) -> Offers:
    if not strangers.any():
        return offers
    counts = torch.from_numpy(run.describe["catalogue"].counts).float()
    only = torch.arange(1, len(counts)) if allowed is None else allowed.cpu()
    best = counts[only].sort(descending=True, stable=True)
    k, rows = offers.items.shape[1], torch.from_numpy(strangers)
    offers.items[rows] = only[best.indices[:k]]
    offers.scores[rows] = (best.values[:k] + 1).log() - (counts[1:] + 1).sum().log()
    return offers


def _served(
    run: Trained, log: Any, users: np.ndarray, folder: Path, k: int, filter_seen: bool, allowed: Tensor | None
) -> Offers:
    """What the users are offered after the events of the log on top of those that the state knows; the state is saved."""
    server = Server(run.model, run.device)
    if folder.is_dir():
        server.load(folder)
    batch = run.data.whole(log, np.arange(len(log.offsets) - 1), None)
    items, _, times, features = run.task.inputs(batch)
    ids = [log.user_id(each) for each in range(len(log.offsets) - 1)]
    for place in range(items.shape[1]):
        rows = (items[:, place] > 0).nonzero()[:, 0]
        if len(rows):
            server.update(
                [ids[row] for row in rows.tolist()],
                items[rows, place],
                None if times is None else times[rows, place],
                None if features is None else {name: each[rows, place] for name, each in features.items()},
            )
    server.save(folder)
    return server.offers([ids[each] for each in users.tolist()], k, filter_seen, allowed)


def _similar(run: Trained, item: str, k: int, allowed: Tensor | None) -> Answer:
    """Items most like one: by the angle between embeddings; of a model without any, what it offers after that item alone."""
    catalogue, model = run.describe["catalogue"], run.model
    number = _number(item, catalogue)
    if isinstance(model, SequentialModel):
        table = torch.nn.functional.normalize(
            getattr(model, model.item_table).weight[: model.items + 1].detach(), dim=1
        )
        likeness = table @ table[number]
    else:
        with torch.inference_mode():
            likeness = model.scores(model.encode(torch.tensor([[number]], device=run.device)))[0]
    likeness[[0, number]] = -torch.inf
    numbers = torch.arange(len(likeness), device=run.device) if allowed is None else allowed
    best = likeness[numbers].topk(min(k, len(numbers)))
    found = [(int(numbers[place]), value) for place, value in zip(best.indices, best.values.tolist(), strict=True)]
    lines = [f"  {value:7.3f}  {catalogue.name(each)}" for each, value in found if each not in (0, number)]
    return Answer([f"  most like {catalogue.name(number)}", *lines])


def _read(run: Trained, where: str | None) -> Any:
    if where is not None:
        return run.data.read_events(Path(where).expanduser())
    run.data.read()
    return run.data.log


def _chosen(log: Any, users: str | None) -> np.ndarray:
    """Numbers of the users that are asked for."""
    every = np.arange(len(log.offsets) - 1)
    if users is None:
        return every
    path = Path(users).expanduser()
    wanted = path.read_text(encoding="utf-8").split("\n") if path.is_file() else users.split(",")
    numbers = {str(log.user_id(each)): each for each in every.tolist()}
    wanted = [each.strip() for each in wanted if each.strip()]
    if unknown := [each for each in wanted if each not in numbers]:
        raise UserError(
            "users that have no events here",
            given=", ".join(unknown[:5]),
            allowed=f"{next(iter(numbers), 'none')}, ...",
        )
    return np.array([numbers[each] for each in wanted], np.int64)


def _allowed(path: Path, catalogue: Any) -> Tensor:
    try:
        wanted = [each.strip() for each in path.read_text(encoding="utf-8").split("\n") if each.strip()]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}", given=f"allow={path}") from error
    if not wanted:
        raise UserError("no item is allowed", given=f"{path} is empty")
    return torch.tensor(sorted({_number(each, catalogue) for each in wanted}))


def _number(item: str, catalogue: Any) -> int:
    if (number := catalogue.numbers.get(item)) is None:
        examples: Sequence[str] = catalogue.ids[:3]
        raise UserError("an item that the model does not know", given=item, allowed=", ".join([*examples, "..."]))
    return number


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, dict):
        return {name: each.to(device) for name, each in value.items()}
    return None if value is None else value.to(device)
