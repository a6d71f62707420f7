"""`init=...`: a run that begins with the weights of another one, or of a published model, instead of random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ...core.errors import UserError
from ..conventions import published
from ..training.assembly import check_fit
from ..training.run_folder import run_of
from ..training.targets import resolve
from . import folder as files


@dataclass(frozen=True)
class Initial:
    """Weights to begin with.

    Args:
        read: from the model that is to begin with them to tensors by name.
        source: what they are, for people.
        run: the run folder they come from, which has kept what belongs to them; None: a published model.
    """

    read: Callable[[nn.Module], Mapping[str, Tensor]]
    source: str
    run: Path | None = None

    def put_into(self, model: nn.Module) -> str:
        """Load them; returns a line that says what was loaded.

        The last layer of a classifier (timm's `get_classifier`) stays as it is where it has another shape: other classes.

        Raises:
            UserError: any other weights do not fit the model.
        """
        own, given = model.state_dict(), self.read(model)
        fresh = [name for name in _classifier(model) if given.get(name, own[name]).shape != own[name].shape]
        weights = {**given, **{name: own[name] for name in fresh}}
        check_fit(weights, model, do="give init weights of the same model, of data of the same form")
        model.load_state_dict(weights)
        return self.source + (f"; new: {', '.join(fresh)}" if fresh else "")


def read_initial(where: str, target: str = "", allow: Sequence[str] = ()) -> Initial:
    """The weights that `init=` names: a run folder (its best ones), a checkpoint, or published weights of the domain.

    Args:
        where: what was typed.
        target: a dotted path of the run's domain, like its task's.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: there are none, or they are damaged.
    """
    if not where:
        raise UserError(
            "init names no weights",
            given="init=",
            allowed="a run folder, a checkpoint, a published model",
            do="init=null",
        )
    module = published(where, target, allow)
    if module is not None:
        return Initial(partial(resolve(f"{module}.read_weights", allow), where), where)
    path, remark = files.find(where, ("best", "last"), do="init=<another run>, or init=null for random weights")
    source = f"{run_of(path)}, {path.name}" + (f" ({remark})" if remark else "")
    weights = files.read_weights(path)
    return Initial(lambda model: weights, source, run_of(path))


def _classifier(model: nn.Module) -> list[str]:
    """Names of the parameters of a model's last layer; none where it does not say which that is."""
    last = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(last, nn.Module):
        return []
    [prefix] = [name for name, module in model.named_modules() if module is last]
    return [f"{prefix}.{name}" for name in last.state_dict()]
