"""Knowledge distillation: a second loss, against what a teacher says of the same images (DeiT, arXiv 2012.12877, section 4)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.scans import get as get_scan
from .published import is_published, load

OWN = f"{__package__}.models."


class Distillation:
    """What a teacher adds to the loss.

    Args:
        teacher: a run folder of this domain, published weights (a file or a name), or timm's name of a pretrained model.
        kind: "soft": the Kullback-Leibler divergence from the teacher's probabilities; "hard": cross-entropy against its decision.
        weight: of the teacher's part of the loss; the labels have the rest.
        temperature: that both sides' logits are divided by ("soft" alone).
        describe: of the data: channels, num_classes.
    """

    def __init__(self, teacher: str, kind: str, weight: float, temperature: float, describe: Mapping[str, Any]):
        self.where, self.kind, self.weight, self.temperature = teacher, kind, weight, temperature
        self.describe, self._teacher = describe, None

    @property
    def teacher(self) -> nn.Module:
        """The teacher, frozen; read when it is first asked for.

        Raises:
            UserError: there is none, or it answers for other images or classes.
        """
        if self._teacher is None:
            self._teacher = read_teacher(self.where, self.describe).eval().requires_grad_(False)
        return self._teacher

    def loss(self, base: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The whole loss, a scalar.

        Args:
            base: the labels' part. logits: (batch, classes), what is held against the teacher. images: as the student sees them.
        """
        with torch.no_grad():
            said = self.teacher.to(images.device)(images).float()
        if said.shape != logits.shape:
            raise UserError(
                "the teacher knows other classes", given=said.shape[1], allowed=f"{logits.shape[1]} classes"
            )
        if self.kind == "hard":
            taught = F.cross_entropy(logits, said.argmax(1))
        else:
            student, teacher = (F.log_softmax(each / self.temperature, 1) for each in (logits, said))
            # Times the temperature's square, so that its gradient does not shrink with it (Hinton et al. 2015).
            taught = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * self.temperature**2
        return (1 - self.weight) * base + self.weight * taught


def read_teacher(where: str, describe: Mapping[str, Any]) -> nn.Module:
    """A trained model; arguments as of Distillation.

    Raises:
        UserError: there is no such model.
    """
    path = Path(where).expanduser()
    files = [path / "checkpoints" / link / "weights.safetensors" for link in ("best", "last")]
    found = [each for each in files if each.is_file()]
    if found:
        return _of_run(found[0])
    if is_published(where):
        return load(where).model
    import timm

    if not timm.is_model(where):
        raise UserError(
            "there is no such teacher", given=f"task.teacher={where}",
            allowed="a run folder, a file of published weights, or timm's name of a pretrained model",
        )  # fmt: skip
    try:
        return timm.create_model(
            where, pretrained=True, in_chans=describe["channels"], num_classes=describe["num_classes"]
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot fetch the weights of {where}",
            given=str(error).split("\n")[0][:200],
            allowed="a network, or a run folder",
        ) from error


def _of_run(file: Path) -> nn.Module:
    """The model that a run of this domain has saved, by what its weights file says of itself."""
    try:
        with safe_open(file, "pt") as opened:
            about = {name: json.loads(value) for name, value in opened.metadata().items() if name != "format"}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  not a dict
        target, model = about["model"].pop("_target_"), about["model"]
        description = about["description"]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError("cannot read the teacher's weights", given=f"{file}: {error}") from error
    if not target.startswith(OWN):
        raise UserError("the teacher is no model of this domain", given=target, allowed=f"{OWN}…")
    module, _, name = target.rpartition(".")
    options = {key: value for key, value in model.items() if key not in ("name", "scan", "choose")}
    if scan := about.get("scan"):
        parameters = {key: value for key, value in scan.items() if key != "name"}
        options["scan"] = get_scan(scan["name"], **parameters)
    built = getattr(importlib.import_module(module), name)(
        describe=description.get("for_model", description), **options
    )
    built.load_state_dict(weights)
    return built
