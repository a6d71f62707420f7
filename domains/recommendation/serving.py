"""A state for each user, moved on one event at a time: the scores are those of reading the whole history again.

server = Server(model)
server.update(["anna", "ben"], items, times)
server.offers(["anna"], k=10)
server.save(folder)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...core.errors import UserError
from .models.sequential import Recommender, States
from .offers import Offers
from .top_k import best_items

USERS, TENSORS = "users.json", "states.safetensors"


class Server:
    """Keeps a state a user; what one costs does not depend on the length of the history where the model's state does not.

    A user nobody has seen begins with the first event. Where a model has positions, the event behind the last of them is refused.

    Args:
        model: one that carries a state, in eval mode.
        device: where the states lie.

    Raises:
        UserError: the model reads histories as a whole.
    """

    def __init__(self, model: Recommender, device: str = "cpu"):
        if not model.carries_state:
            raise UserError(
                "this model reads a history as a whole and has no state to serve from", given=type(model).__name__,
                do="leave state= out: histories are then read anew",
            )  # fmt: skip
        self.model, self.device = model, device
        self._states: dict[Any, list[Tensor | None]] = {}
        self._hidden: dict[Any, Tensor] = {}
        self._seen: dict[Any, set[int]] = {}
        self._form: Any = None

    def __len__(self) -> int:
        return len(self._states)

    @torch.inference_mode()
    def update(
        self,
        users: Sequence[Any],
        items: Tensor,
        times: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Moves users on by one event each.

        Args:
            users: ids, each once. items, times, features: (users,), or (users, values), as of Recommender.forward.
        """
        if len(set(users)) < len(users):
            raise UserError("one event of a user at a time", given=f"{len(users) - len(set(users))} users named again")
        for rows in self._alike(users):
            index = torch.tensor(rows)
            states = self._joined([users[row] for row in rows])
            hidden, after = self.model(
                items[index][:, None].to(self.device),
                None,
                None if times is None else times[index][:, None].to(self.device),
                None
                if features is None
                else {name: each[index][:, None].to(self.device) for name, each in features.items()},
                states,
            )
            self.put([users[row] for row in rows], items[index][:, None], hidden, after)

    def put(self, users: Sequence[Any], items: Tensor, hidden: Tensor, states: States) -> None:
        """Keeps what the model has said of users' events, one of them or whole histories.

        Args:
            items: (users, length) int64, no padding. hidden, states: what the model returned for them.
        """
        leaves, self._form = tree_flatten(states)
        for row, user in enumerate(users):
            self._states[user] = [each[row : row + 1].clone() if isinstance(each, Tensor) else each for each in leaves]
            self._hidden[user] = hidden[row, -1].clone()
            self._seen.setdefault(user, set()).update(items[row].tolist())

    @torch.inference_mode()
    def offers(
        self, users: Sequence[Any], k: int = 10, filter_seen: bool = True, candidates: Tensor | None = None
    ) -> Offers:
        """The best items for users; arguments as of top_k.best_items.

        Raises:
            UserError: users without events.
        """
        if unknown := [each for each in users if each not in self._hidden]:
            raise UserError("users without events", given=", ".join(map(str, unknown[:5])))
        if not users:
            return Offers([], torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, k))
        hide = None
        if filter_seen:
            rows = [torch.tensor(sorted(self._seen[each])) for each in users]
            hide = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        best = best_items(self.model, self.hidden(users), k, hide=hide, candidates=candidates)
        return Offers(list(users), best.items.cpu(), best.scores.cpu())

    def hidden(self, users: Sequence[Any]) -> Tensor:
        """(users, channels), what the model makes of their events so far."""
        return torch.stack([self._hidden[each] for each in users])

    def save(self, folder: Path) -> None:
        """Writes all states into a folder, made where it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        everybody, tensors, named = list(self._states), {}, []
        for group, rows in enumerate(self._alike(everybody)):
            users = [everybody[row] for row in rows]
            columns = zip(*(self._states[each] for each in users), strict=True)
            tensors |= {
                f"{group}.{place}": torch.cat(each) for place, each in enumerate(columns) if each[0] is not None
            }
            tensors[f"{group}.hidden"] = self.hidden(users)
            named.append([[user, sorted(self._seen[user])] for user in users])
        save_file({name: each.contiguous() for name, each in tensors.items()}, folder / TENSORS)
        about = {"model": type(self.model).__name__, "items": self.model.items, "groups": named}
        (folder / USERS).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    @torch.inference_mode()
    def load(self, folder: Path) -> None:
        """Goes on from what `save` has written there.

        Raises:
            UserError: there is none, or it is another model's.
        """
        try:
            about = json.loads((folder / USERS).read_text(encoding="utf-8"))
            tensors = load_file(folder / TENSORS, self.device)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no states that can be read: {error}", given=f"state={folder}") from error
        leaves, self._form = tree_flatten(
            self.model(torch.ones(1, 1, dtype=torch.int64, device=self.device), **self._blank())[1]
        )
        if about["model"] != type(self.model).__name__ or about["items"] != self.model.items:
            raise UserError(
                "these states are another model's", given=f"{about['model']} of {about['items']:,} items",
                allowed=f"{type(self.model).__name__} of {self.model.items:,} items",
            )  # fmt: skip
        for group, users in enumerate(about["groups"]):
            stacked = [tensors.get(f"{group}.{place}") for place in range(len(leaves))]
            for row, (user, items) in enumerate(users):
                self._states[user] = [None if each is None else each[row : row + 1].clone() for each in stacked]
                self._hidden[user], self._seen[user] = tensors[f"{group}.hidden"][row].clone(), set(items)

    def _blank(self) -> dict[str, Any]:
        one = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        return {"times": one, "features": dict.fromkeys(self.model.features, one)}

    def _alike(self, users: Sequence[Any]) -> list[list[int]]:
        """Rows whose states have the same shapes; new users, who have none, together."""
        found: dict[Any, list[int]] = {}
        for row, user in enumerate(users):
            leaves = self._states.get(user)
            shapes = None if leaves is None else tuple(getattr(each, "shape", None) for each in leaves)
            found.setdefault(shapes, []).append(row)
        return list(found.values())

    def _joined(self, users: Sequence[Any]) -> Any:
        own = [self._states.get(each) for each in users]
        if own[0] is None:
            return None
        leaves = [torch.cat(each) if isinstance(each[0], Tensor) else each[0] for each in zip(*own, strict=True)]
        return tree_unflatten(leaves, self._form)
