"""What image classifiers' answers rest on."""

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.core.explanation import METHODS, explain, part_in_answer
from polymamba.domains.trained import Trained
from polymamba.domains.vision.explanation import beside_heat, explain_images
from polymamba.domains.vision.models.vim import Vim
from polymamba.domains.vision.predict import explain_classes

DESCRIBE = {"num_classes": 3, "classes": ["cat", "dog", "cow"], "mean": [0.5], "std": [0.25]}


def model(class_token="middle", channels=3, **options):
    torch.manual_seed(0)
    made = Vim((8, 12), 4, in_chans=channels, num_classes=3, embed_dim=16, depth=2, class_token=class_token, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def images(count=5, channels=3):
    return torch.randn(count, channels, 8, 12, generator=torch.Generator().manual_seed(1))


def test_which_tokens_answer():
    assert model("middle").answering == [3]
    assert model("double").answering == [0, 7]
    assert model("double", global_pool="avg").answering == [1, 2, 3, 4, 5, 6]
    assert model("none").answering == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("class_token", ["double", "none"])
@pytest.mark.parametrize("scan", ["bidirectional", "cross"])
def test_weights_of_the_answering_tokens(method, class_token, scan):
    made, given = model(class_token, scan=scan).train(), images()
    found = explain_images(made, given, method)
    assert made.training
    made.eval()
    torch.testing.assert_close(found.logits, made(given))
    said = found.logits.argmax(1, keepdim=True)
    score = (lambda logits: logits.gather(1, said)) if method == "attribution" else None
    expected = part_in_answer(explain(made, given, method=method, score=score), made.answering)
    torch.testing.assert_close(found.weights, expected)
    alone = explain_images(made, given[2:3], method)
    torch.testing.assert_close(found.weights[2], alone.weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_beside_their_heat(channels):
    made, given = model(channels=channels), images(channels=channels)
    labels = made(given).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    names = [f"is {DESCRIBE['classes'][label]}" for label in labels]
    figure, said = explain_classes(Trained(made, None, None, DESCRIBE, "cpu", None), given, names, labels.tolist())
    assert [a == b for a, b in zip(said, labels.tolist(), strict=True)] == [True, False, True, True, True]
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 10
    assert drawn[2].get_title() == f"is {DESCRIBE['classes'][labels[1]]}"
    assert drawn[3].get_title().startswith("said ")
    right, wrong = drawn[1].title.get_color(), drawn[3].title.get_color()
    assert right != wrong
    weights = explain_images(made, given).weights
    visible = (given * 0.25 + 0.5).clamp(0, 1)
    expected = beside_heat(visible, weights, made.grid)
    for axis, picture in zip(drawn, expected, strict=True):
        torch.testing.assert_close(torch.tensor(axis.images[0].get_array()).float(), picture.permute(1, 2, 0))


def test_what_does_not_fit():
    with pytest.raises(UserError, match="no hidden attention"):
        explain_classes(Trained(nn.Flatten(), None, None, DESCRIBE, "cpu", None), images(1), ["a"])
    with pytest.raises(UserError, match="unknown method"):
        explain_images(model(), images(), "rollup")
