"""The papers' recipes compose with any model and reach the parts that they are for; a teacher's part of the loss."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.vision.classification import Classification
from polymamba.domains.vision.distillation import Distillation, read_teacher
from polymamba.domains.vision.models.groupmamba import GroupMamba
from polymamba.domains.vision.models.vmamba import VMamba, build
from polymamba.engine.command_line.compose import compose

FOLDER = Path(str(importlib.resources.files("polymamba.configs"))) / "vision" / "recipe"
DATA_SETS = {path.stem for path in (FOLDER.parent / "data").glob("*.yaml")}
PAPERS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in DATA_SETS)
DESCRIBE = {"num_classes": 3, "channels": 1, "image_size": [8, 8], "model_size": "micro", "classes": ["a", "b", "c"]}


@pytest.mark.parametrize("recipe", PAPERS)
def test_a_recipe_composes(recipe):
    model = {"vim_finetune": "vim", "localmamba": "localvim", "distillation": "groupmamba"}.get(recipe, recipe)
    config = compose(["domain=vision", "data=cifar10", f"model={model}", f"recipe={recipe}"])
    assert config.trainer.epochs >= 30
    assert 0 < config.optimizer.warmup < 0.2
    assert config.data["augmentation"]["kind"] == "standard"
    assert config.task["cutmix"] == 1.0
    other = compose(["domain=vision", "data=digits", "model=vit", f"recipe={recipe}", "optimizer.lr=0.5"])
    assert other.optimizer.lr == 0.5
    assert other.model["drop_path_rate"] == config.model["drop_path_rate"]


def test_vmambas_is_swins():
    config = compose(["domain=vision", "data=cifar10", "model=vmamba", "recipe=vmamba"])
    assert (config.trainer.ema, config.trainer.gradient_clip, config.trainer.epochs) == (0.9999, 5.0, 300)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-3, 0.05)
    assert config.data["loading"]["batch_size"] == 1024


class Fixed(nn.Module):
    """Says the same of every image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def teaching(kind: str, weight: float, temperature: float = 1.0, said=(0.2, 1.0, -0.5)):
    found = Distillation("teacher", kind, weight, temperature, DESCRIBE)
    found._teacher = Fixed(list(said))
    return found


def test_hard_distillation_follows_the_teachers_decision():
    logits, images = torch.randn(4, 3), torch.zeros(4, 1, 8, 8)
    base = torch.tensor(2.0)
    expected = 0.25 * 2.0 + 0.75 * F.cross_entropy(logits, torch.full((4,), 1))
    torch.testing.assert_close(teaching("hard", 0.75).loss(base, logits, images), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_distillation_is_the_divergence_of_probabilities(temperature):
    torch.manual_seed(0)
    logits, images = torch.randn(4, 3), torch.zeros(4, 1, 8, 8)
    said = (torch.tensor([0.2, 1.0, -0.5]) / temperature).softmax(0)
    divergence = (said * (said.log() - (logits / temperature).log_softmax(1))).sum(1).mean() * temperature**2
    found = teaching("soft", 1.0, temperature).loss(torch.tensor(9.0), logits, images)
    torch.testing.assert_close(found, divergence)
    same = teaching("soft", 1.0, temperature).loss(torch.tensor(9.0), torch.tensor([[0.2, 1.0, -0.5]]), images[:1])
    torch.testing.assert_close(same, torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_a_student_with_two_heads(mixup):
    """The labels' part is held against one, the teacher's against the other; the teacher learns nothing."""
    torch.manual_seed(0)
    model = GroupMamba(8, 1, 3, stem_dim=8, dims=(16, 32), depths=(1, 1), mlp_ratios=(2, 2), distilled=True)
    task = Classification(model, DESCRIBE, mixup=mixup, teacher="teacher", distillation_weight=0.5)
    task.distillation = teaching("hard", 0.5)
    task.train()
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    loss, _ = task.step((images, labels), "train")
    if not mixup:
        own, taught = model(images)
        expected = 0.5 * F.cross_entropy(own, labels) + 0.5 * F.cross_entropy(taught, torch.ones(4, dtype=torch.long))
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert model.dist_head.weight.grad.any()
    assert task.distillation.teacher.logits.grad is None
    assert not [name for name, _ in task.named_parameters() if "teacher" in name]
    task.eval()
    assert task.step((images, labels), "val")[0].isfinite()


def test_a_teacher_of_published_weights(tmp_path):
    torch.manual_seed(0)
    first = VMamba(16, 1, 3, stride=2, dims=(8, 16), depths=(1, 1)).eval()
    torch.save({"model": first.state_dict()}, tmp_path / "vmamba.pth")
    found = read_teacher(str(tmp_path / "vmamba.pth"), DESCRIBE)
    assert type(found) is VMamba
    with pytest.raises(UserError, match="no such teacher"):
        read_teacher(str(tmp_path / "nothing"), DESCRIBE)
    student = teaching("hard", 0.5, said=(0.0, 1.0))
    with pytest.raises(UserError, match="other classes"):
        student.loss(torch.tensor(1.0), torch.randn(2, 3), torch.zeros(2, 1, 8, 8))


def test_a_run_teaches_another(command):
    typed = (
        "domain=vision", "model=vmamba", "data.limit=20", "trainer.steps=1", "trainer.progress=none", "trainer.threads=1",
        "trainer.pictures=false",
    )  # fmt: skip
    code, _, message = command(*typed, "run_dir=first", job="train")
    assert (code, message) == (0, "")
    teacher = read_teacher("first", DESCRIBE)
    assert {n: t.shape for n, t in teacher.state_dict().items()} == {
        n: t.shape for n, t in build({**DESCRIBE, "num_classes": 10}).state_dict().items()
    }
    taught = ("task.teacher=first", "task.distillation=soft", "task.temperature=2", "run_dir=second")
    code, _, message = command(*typed, *taught, job="train")
    assert (code, message) == (0, "")
    code, _, message = command(*typed, "task.teacher=nobody", "run_dir=third", job="train")
    assert code in (1, 2)
    assert "no such teacher" in message
