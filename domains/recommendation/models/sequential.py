"""What every recommender here is: events of users in, hidden states out, scores of all items, and a state to serve from.

    hidden, states = model(items, seq_idx, times, features)        # (batch, length, channels): what comes after each event
    scores = model.scores(model.encode(items))                     # (batch, items + 1), a user's whole history at once
    hidden, states = model(next_items, states=states)              # (batch, 1): one event more, the same scores

Items are numbered from 1; 0 is padding, on either side. A model that `carries_state` may be fed a history in pieces of any
length. All tensors of a state have the users first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.ops.arguments import check_shape
from ....core.packing import has_padding, places, runs, seq_idx_from_mask
from ....core.ranges import Count, Size

Compat = Literal["corrected", "published"]
BEHAVIOUR = "behaviour"
SIZES = {"one-layer": {"layers": 1}, "two-layers": {"layers": 2}}  # presets of most of the models


class States(NamedTuple):
    """What a model carries from one piece of its users' histories to the next.

    seen: (batch,) int64, events of the sequence so far. layers: of each layer, what it says itself.
    """

    seen: Tensor
    layers: tuple


class Events(NamedTuple):
    """Events of a batch, all (batch, length).

    items: int64. seq_idx: as mixers take it; None: neither padding nor packing. number: int64, the sequence of each event in
    its row, counted from 0, -1 at padding. place: int64, events of its sequence before it, those of a state included. times:
    of the events, None where none are given. features: by name, integer, (batch, length) or (batch, length, values).
    """

    items: Tensor
    seq_idx: Tensor | None
    number: Tensor
    place: Tensor
    times: Tensor | None
    features: Mapping[str, Tensor]


class Recommender(nn.Module):
    """How a recommender is called; a subclass says `run` and `scores`, and `causal` where it reads only backwards.

    Args:
        items: number of items.
        length: events that are kept of a history.
        behaviours: kinds of events (view, cart, purchase, ...); their numbers, from 1, come as feature "behaviour".
        features: further features of an event or its item (category, brand, ...): name -> number of values, counted from 1;
            0: not known.
        more_items: numbers behind the items' (a mask).
    """

    causal: bool = True  # whether the hidden state at an event depends on nothing after it
    reads_padding: bool = False  # whether padding changes an answer, as where the next event's time is asked

    def __init__(
        self,
        items: Size,
        length: Size,
        behaviours: Count = 0,
        features: Mapping[str, int] | None = None,
        more_items: Count = 0,
    ):
        super().__init__()
        self.items, self.length, self.largest = items, length, items + more_items
        self.features = dict(features or {}) | ({BEHAVIOUR: behaviours} if behaviours else {})

    @property
    def tokens(self) -> int:
        """Events of the longest history, which costs are counted with."""
        return self.length

    @property
    def carries_state(self) -> bool:
        """Whether a history can be fed in pieces."""
        return self.causal

    def forward(
        self,
        items: Tensor,
        seq_idx: Tensor | None = None,
        times: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        states: States | None = None,
    ) -> tuple[Tensor, States | None]:
        """What each event, with those before it, says of the next one.

        Args:
            items: (batch, length) int64, 0 at padding.
            seq_idx: (batch, length), integer: a new history begins where it changes (packing); negative at padding. None: a
                history a row, padding where items are 0.
            times: (batch, length), seconds; where a model reads none they are left alone.
            features: (batch, length) integer each, or (batch, length, values), by the names the model was made with.
            states: what the call on the events before these returned; None: the histories begin here.

        Returns:
            hidden states (batch, length, channels), meaningless at padding, and the states to go on from; None where the
            model does not carry any. Where it is not causal, only the last hidden state of a history knows no more than
            the history.

        Raises:
            UserError: items that do not exist, features that are missing, states where none are carried, more events than
                the model has positions for.
        """
        if states is not None and not self.carries_state:
            raise UserError(
                f"{type(self).__name__} reads a history as a whole and carries no state", given="states",
                do="call it on the user's last events, all of them",
            )  # fmt: skip
        events = self.events(items, seq_idx, times, features, states)
        hidden, layers = self.run(events, None if states is None else states.layers)
        return hidden, States(_seen(events, states), tuple(layers)) if self.carries_state else None

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        """Hidden states (batch, length, channels), and a state of each layer."""
        raise NotImplementedError

    def encode(
        self,
        items: Tensor,
        seq_idx: Tensor | None = None,
        times: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What the whole of each row's last history says of the next event, (batch, channels); zero where a row has no event."""
        hidden, _ = self(items, seq_idx, times, features)
        return last_of_each(hidden, items != 0 if seq_idx is None else seq_idx >= 0)

    def scores(self, hidden: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores of items.

        Args:
            hidden: (..., channels).
            items: (candidates,) int64, their numbers; None: all.

        Returns:
            (..., candidates), or (..., items + 1): a column is an item's number. Column 0, padding, means nothing.
        """
        raise NotImplementedError

    def factors(self, hidden: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """What the scores are a product of, for those who need not have all of them at once; arguments as of `scores`.

        Returns:
            (..., channels) and (candidates or items + 1, channels), whose products are the scores; None: they are no products.
        """
        return None

    def events(self, items, seq_idx=None, times=None, features=None, states: States | None = None) -> Events:
        """The events of a call, checked; arguments as of forward."""
        check_shape("items", items, (None, None), integer=True, note="")
        shape = tuple(items.shape)
        check_shape("seq_idx", seq_idx, shape, integer=True, note="")
        check_shape("times", times, shape, note="")
        self._check_items(items)
        seq_idx = seq_idx_from_mask(items != 0) if seq_idx is None else seq_idx
        number = runs(seq_idx)
        place = places(number)
        if states is not None:
            check_shape("states.seen", states.seen, (shape[0],), integer=True, note="")
            place = place + torch.where(number == 0, states.seen[:, None], 0)
        plain = not has_padding(seq_idx) and not bool((number > 0).any())
        return Events(
            items, None if plain else seq_idx, number, place, times, self._check_features(features or {}, shape)
        )

    def _check_items(self, items: Tensor) -> None:
        if items.device.type == "cpu" and items.numel() and (int(items.min()) < 0 or int(items.max()) > self.largest):
            raise UserError(
                "items that do not exist", given=f"numbers from {int(items.min())} to {int(items.max())}",
                allowed=f"1 to {self.items}, 0 for padding",
            )  # fmt: skip

    def _check_features(self, given: Mapping[str, Tensor], shape: tuple[int, ...]) -> Mapping[str, Tensor]:
        if set(given) != set(self.features):
            raise UserError(
                "the features are not those the model was made with", given=sorted(given) or "none",
                allowed=sorted(self.features) or "none",
            )  # fmt: skip
        for name, values in given.items():
            check_shape(
                f"features.{name}", values, shape if values.dim() == 2 else (*shape, None), integer=True, note=""
            )
            most = int(values.max()) if values.device.type == "cpu" and values.numel() else 0
            if most > self.features[name]:
                raise UserError(
                    f"values of feature {name!r} that do not exist", given=most, allowed=f"0 to {self.features[name]}"
                )
        return given


class SequentialModel(Recommender):
    """A recommender whose items are embeddings, scored by their product with a hidden state.

    Args:
        items, length, behaviours, features, more_items: see Recommender; a model with positions takes at most `length` events.
        channels: of the embeddings and of the hidden states.
        positions: name of a table of learned positions; None: none.

    Behaviours and features are inputs: their embeddings are added to the item's; what an event has several of is averaged. Scores
    are of items alone.
    """

    item_table: ClassVar[str] = "item_embedding"

    def __init__(self, items: Size, length: Size, channels: Size, positions: str | None = None, **inputs: Any):
        super().__init__(items, length, **inputs)
        self.channels, self.positions = channels, positions
        self.add_module(self.item_table, nn.Embedding(self.largest + 1, channels, padding_idx=0))
        if positions is not None:
            self.add_module(positions, nn.Embedding(length, channels))
        if self.features:
            self.feature_embeddings = nn.ModuleDict(
                {name: nn.Embedding(count + 1, channels, padding_idx=0) for name, count in self.features.items()}
            )

    def scores(self, hidden: Tensor, items: Tensor | None = None) -> Tensor:
        """As of Recommender: the product of the factors."""
        left, right = self.factors(hidden, items)
        return left @ right.T

    def factors(self, hidden: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of Recommender: hidden states and embeddings."""
        table = getattr(self, self.item_table).weight[: self.items + 1]
        return hidden, table if items is None else table[items]

    def embed(self, events: Events, scale: float = 1.0, places: Tensor | None = None) -> Tensor:
        """(batch, length, channels): the items' embeddings times `scale`, and those of places and features.

        Args:
            places: (batch, length) int64, other than the events' own.
        """
        x = getattr(self, self.item_table)(events.items) * scale
        if self.positions is not None:
            places = events.place if places is None else places
            if places.device.type == "cpu" and places.numel() and int(places.max()) >= self.length:
                raise UserError(
                    "a history is longer than the model's positions", given=f"{int(places.max()) + 1} events",
                    allowed=f"at most {self.length}", do="begin anew with the last events, or make a model of that length",
                )  # fmt: skip
            x = x + getattr(self, self.positions)(places)
        for name, values in events.features.items():
            said = self.feature_embeddings[name](values)
            if said.dim() == 4:
                said = said.sum(2) / (values > 0).sum(2, keepdim=True).clamp_min(1)
            x = x + said
        return x


def from_describe(describe: Mapping[str, Any]) -> dict[str, Any]:
    """SequentialModel's arguments from a data set's description: items, length, behaviours, features.

    Args:
        describe: items: their number. length: events kept of a history. behaviours: names of the kinds of events, or how many
            there are. features: name -> number of values. The last two may be left out.
    """
    behaviours = describe.get("behaviours") or 0
    return {
        "items": int(describe["items"]),
        "length": int(describe["length"]),
        "behaviours": behaviours if isinstance(behaviours, int) else len(behaviours),
        "features": dict(describe.get("features") or {}),
    }


def fitted(model: Any, describe: Mapping[str, Any]) -> Any:
    """A model that learns by counting, with what the description has to count: "events", (events,) users and items each."""
    known = describe.get("events")
    return model if known is None or next(model.buffers()).is_meta else model.fit(*known)


def last_of_each(hidden: Tensor, real: Tensor) -> Tensor:
    """(batch, channels): hidden states (batch, length, channels) at each row's last place that is `real` (batch, length), or 0."""
    if not hidden.shape[1]:
        return hidden.new_zeros(hidden.shape[0], *hidden.shape[2:])
    place = torch.arange(real.shape[1], device=real.device)
    last = torch.where(real, place, -1).amax(1)
    taken = hidden.take_along_dim(last.clamp_min(0)[:, None, None], 1)[:, 0]
    return taken.masked_fill((last < 0)[:, None], 0)


def check_compat(compat: str) -> None:
    """Raise a UserError for anything but "corrected" and "published"."""
    check_choice("compat", compat, Compat.__args__)


@torch.no_grad()
def init_normal(model: nn.Module, std: float = 0.02, compat: Compat = "corrected") -> None:
    """RecBole's start: linear layers and tables normal, linear biases 0.

    Corrected: what is inside a mixer stays as the mixer begins, and padding is 0. Published:
    everything is overwritten, so that steps begin at softplus(0) = 0.69 instead of 0.001 to 0.1.
    """
    kept = set()
    if compat == "corrected":
        kept = {id(part) for mixer in model.modules() if hasattr(mixer, "state_shapes") for part in mixer.modules()}
    for module in model.modules():
        if id(module) in kept or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None and compat == "corrected":
            module.weight[module.padding_idx] = 0


def _seen(events: Events, states: States | None) -> Tensor:
    """(batch,) int64, events of each row's last sequence."""
    before = events.place.new_zeros(events.place.shape[0]) if states is None else states.seen
    if not events.place.shape[1]:
        return before
    real = events.number >= 0
    count = last_of_each((events.place + 1)[..., None], real)[:, 0]
    return torch.where(real.any(1), count, before)
