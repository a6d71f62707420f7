"""What all forecasters share: how they are called, what is checked of a call, and what they read of a data set's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from ....core.errors import UserError, check_choice

Compat = Literal["corrected", "published"]  # the model as it was meant, or as the paper's code computes it
Backend = Literal["auto", "cpu", "gpu", "reference"]


class Forecaster(nn.Module):
    """A model from the last values of some series to the coming ones.

    A subclass says what it makes of a window (`features`) and may take another `forward`; one with an `encode` and a `decode`
    and an instance norm called `revin_layer` has both from here: normalise, encode, decode, undo.

    Args:
        lookback, horizon: steps that it sees, and that it answers.
        variables: series of a window; None: any number.
        mark_features: calendar features of a step, for a model that reads them; 0: it is called without.
    """

    reads_marks = False
    future_marks = False  # whether it reads the calendar features of the horizon too
    # What its mixers walk over: "patches" of a variable, "variables", "both" in one sequence, "steps"; None: something else.
    tokens_are: str | None = None

    def __init__(self, lookback: int, horizon: int, variables: int | None = None, mark_features: int = 0):
        super().__init__()
        self.lookback, self.horizon, self.variables, self.mark_features = lookback, horizon, variables, mark_features

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """The coming values.

        Args:
            x: (batch, look-back, variables), floating point.
            marks: (batch, look-back or look-back + horizon, mark_features), calendar features; None: without. A model that
                does not read any (`reads_marks`) takes what it is given.

        Returns:
            (batch, horizon, variables).

        Raises:
            UserError: another number of steps, variables or features than the model was made for.
        """
        marks = self.check(x, marks)
        x, scale = self.revin_layer.normalise(x)
        return self.revin_layer.undo(self.decode(self.encode(x, marks)).transpose(1, 2), scale)

    def features(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """What the encoder makes of a window, (batch, variables, ..., channels); arguments as of forward."""
        marks = self.check(x, marks)
        return self.encode(self.revin_layer.normalise(x)[0], marks)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """What `features` returns, from a normalised window (batch, look-back, variables) and its past marks."""
        raise NotImplementedError

    def decode(self, features: Tensor) -> Tensor:
        """The normalised answer (batch, variables, horizon) from what `encode` returns."""
        raise NotImplementedError

    def check(self, x: Tensor, marks: Tensor | None) -> Tensor | None:
        """Raise a UserError where a call does not fit the model.

        Returns:
            The marks that the model reads: none, those of the look-back, or those of the horizon too.
        """
        variables = x.shape[-1] if self.variables is None else self.variables
        if x.dim() != 3 or x.shape[1:] != (self.lookback, variables) or not x.is_floating_point():
            raise UserError(
                "this model sees other windows", given=f"{x.dtype} {tuple(x.shape)}",
                allowed=f"floating point (batch, {self.lookback}, {'variables' if self.variables is None else variables})",
            )  # fmt: skip
        if marks is None or not self.reads_marks:
            return None
        most = self.lookback + self.horizon
        lengths = (most,) if self.future_marks else (self.lookback, most)
        given = tuple(marks.shape)
        if len(given) != 3 or given[0] != x.shape[0] or given[1] not in lengths or given[2] != self.mark_features:
            wanted = " or ".join(f"({x.shape[0]}, {length}, {self.mark_features})" for length in lengths)
            raise UserError("these calendar features do not fit the window or the model", given=given, allowed=wanted)
        return marks if self.future_marks else marks[:, : self.lookback]


def is_published(compat: str) -> bool:
    """Whether a model shall compute as its published code does.

    Raises:
        UserError: neither "corrected" nor "published".
    """
    check_choice("compat", compat, get_args(Compat))
    return compat == "published"


def described(describe: Mapping, *also: str, classifies: bool = False) -> dict:
    """lookback and horizon of a data set's description, and whichever of variables and mark_features are asked for.

    Raises:
        UserError: the description lacks one (mark_features may be left out: none), or asks for classes of a model that does not
            name any (`classifies`).
    """
    if "num_classes" in describe and not classifies:
        raise UserError(
            "this model forecasts, and the data ask for classes",
            given=describe.get("name"),
            do="model=mamba_forecaster",
        )
    names = ("lookback", "horizon", *also)
    lacking = [name for name in names if name not in describe and name != "mark_features"]
    if lacking:
        raise UserError(
            "a forecaster needs to know more of its data", given=f"a description without {', '.join(lacking)}",
            allowed=f"one with {', '.join(names)}",
        )  # fmt: skip
    return {name: int(describe.get(name, 0)) for name in names}


def sized(sizes: Mapping[str, Mapping], size: str | None, describe: Mapping, **others) -> dict:
    """The settings of a size, those given otherwise (not None) in their place.

    Without a size it is the data set's "model_size", where there is one of that name, else the first after the smallest.
    """
    if size is None:
        asked = describe.get("model_size")
        size = asked if asked in sizes else list(sizes)[1]
    check_choice("model.size", size, sizes, "model size")
    return {**sizes[size], **{name: value for name, value in others.items() if value is not None}}
