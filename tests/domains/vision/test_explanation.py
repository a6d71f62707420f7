"""What image classifiers' answers rest on."""

import copy

import pytest
import timm
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.core.explanation import METHODS, explain, explain_stages, part_in_answer
from polymamba.domains.trained import Trained
from polymamba.domains.vision.explanation import (
    beside_heat,
    can_explain,
    explain_images,
    receptive_field,
    share_within,
    through_stages,
)
from polymamba.domains.vision.models.vim import Vim
from polymamba.domains.vision.predict import explain_classes, predict

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


STAGED = ("vmamba", "plainmamba", "efficientvmamba", "localvmamba", "localvim", "mamband", "mambavision")


def staged(name, size=(24, 20), **options):
    torch.manual_seed(0)
    patches = {"patch_size": 4} if name in ("plainmamba", "localvim", "mamband") else {"stride": 2}
    made = timm.create_model(f"{name}_micro", img_size=size, num_classes=3, **patches, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("name", STAGED)
@pytest.mark.parametrize("method", METHODS)
def test_models_of_stages(name, method):
    made = staged(name)
    given = torch.randn(2, 3, 24, 20)
    found = explain_images(made, given, method)
    assert found.weights.shape == (2, found.grid.length)
    assert found.grid.sizes == next(each for each in made.walks if found.grid.sizes)[1].sizes or name == "mambavision"
    assert found.weights.isfinite().all()
    assert found.weights.std() > 0
    torch.testing.assert_close(found.logits, made(given))
    alone = explain_images(made, given[1:], method)
    torch.testing.assert_close(found.weights[1], alone.weights[0], rtol=1e-3, atol=1e-6)
    assert beside_heat(given.sigmoid(), found.weights, found.grid).shape == (4, 3, 24, 20)


def test_one_stage_is_the_mean_over_all_tokens():
    made, given = staged("plainmamba"), torch.randn(2, 3, 24, 20)
    expected = part_in_answer(explain(made, given, method="rollout"), range(30))
    torch.testing.assert_close(explain_images(made, given, "rollout").weights, expected)


def test_parts_go_from_stage_to_stage():
    """By loops: from the last map's mean to whom its tokens took from, then to the four that each was made from."""
    made, given = staged("vmamba", (16, 24)), torch.randn(1, 3, 16, 24)
    first, second = explain_stages(made, given, method="rollout")
    (height, width), (rows, columns) = (grid.sizes for grid in made.grids)
    part = torch.zeros(rows * columns)
    for to in range(rows * columns):
        for token in range(rows * columns):
            part[token] += (to != token) * second[0, to, token] / (rows * columns)
    finer = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            finer[row, column] = part[row // 2 * columns + column // 2] / 4
    expected = (finer.flatten()[:, None] * first[0] * (1 - torch.eye(height * width))).sum(0)
    torch.testing.assert_close(explain_images(made, given, "rollout").weights[0], expected, rtol=1e-4, atol=1e-7)


def test_windows_keep_to_themselves():
    """Of a map in windows nothing goes from one to another."""
    made = staged("mambavision", (32, 48), window_size=(4, 4)).eval()
    maps = [((4, 4), torch.zeros(6, 16, 16))]
    maps[0][1][4, :, 3] = 1.0  # all of the window in the second row, second column, take from its fourth token
    part, grid = through_stages(made, maps, (32, 48), 1)
    assert grid.sizes == (8, 12)
    places = part.reshape(8, 12).nonzero().tolist()
    assert places == [[4, 7]]
    torch.testing.assert_close(part.sum(), torch.tensor(15 / 96))


def test_where_there_is_no_hidden_attention():
    for name in ("vssd", "msvmamba", "spatialmamba", "groupmamba"):
        assert not can_explain(staged(name))
    assert all(can_explain(staged(name)) for name in STAGED)
    made = copy.deepcopy(staged("vssd"))
    with pytest.raises(UserError, match="receptive_field"):
        explain_classes(Trained(made, None, None, DESCRIBE, "cpu", None), images(1), ["a"])


@pytest.mark.parametrize("name", [*STAGED, "vim", "vssd", "msvmamba", "spatialmamba", "groupmamba"])
def test_receptive_fields(name):
    made = staged(name) if name != "vim" else model(channels=3)
    size = (24, 20) if name != "vim" else (8, 12)
    field = receptive_field(made, torch.randn(2, 3, *size))
    assert field.shape == size
    assert field.max() == 1
    assert (field >= 0).all()
    assert (field > 0).float().mean() > 0.5, "scans see all of an image"
    assert made(torch.randn(1, 3, *size)).grad_fn is not None or not any(p.requires_grad for p in made.parameters())


def test_the_receptive_field_of_a_convolution():
    """Of 3x3 after 3x3: 5x5 pixels, the middle most of all."""

    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2)))
            for layer in self.layers:
                nn.init.ones_(layer.weight)

        def forward_intermediates(self, x, indices, intermediates_only):
            return [self.layers(x)]

    field = receptive_field(Convolved(), torch.randn(3, 1, 11, 11))
    assert (field > 0).nonzero().amin(0).tolist() == [3, 3]
    assert (field > 0).nonzero().amax(0).tolist() == [7, 7]
    expected = torch.tensor([1.0, 2, 3, 2, 1])
    torch.testing.assert_close(field[3:8, 3:8], expected[:, None] * expected / 9)


def test_share_of_a_field():
    even = torch.ones(10, 20)
    for share in (0.25, 0.64):
        assert abs(share_within(even, share) - share) < 0.1
    point = torch.zeros(9, 9)
    point[4, 4] = 1
    assert share_within(point, 0.99) == 0


def test_the_field_is_drawn(tmp_path):
    class Data:
        def test_dataloader(self):
            return [(torch.randn(4, 3, 24, 20), torch.zeros(4, dtype=torch.long))]

    run = Trained(staged("vssd"), object(), Data(), DESCRIBE, "cpu", tmp_path)
    answer = predict(run, explain="receptive_field")
    assert answer.files == [tmp_path / "receptive_field.png"]
    assert answer.files[0].exists()
    assert "50% within" in answer.lines[0]
    with pytest.raises(UserError, match="receptive_field"):
        predict(run, explain="receptive")


def test_walks_of_stages():
    made = staged("mambavision", (32, 48))
    assert [(str(scan), grid.sizes) for scan, grid in made.walks] == [("raster", (8, 8))]
    assert [grid.sizes for _, grid in staged("efficientvmamba").walks] == [(12, 10)]
    assert [grid.sizes for _, grid in staged("vmamba").walks] == [(12, 10), (6, 5)]
    assert staged("vssd").walks == []
    assert {str(scan) for scan, _ in staged("mamband").walks} == {"mamba_nd"}
    rows = [["h", "w2", "v", "v_flip"], ["h", "h_flip", "v", "v_flip"]]
    walked = [scan.name for scan, _ in staged("localvmamba", directions=rows).walks]
    assert "local" in walked[0]
    assert "local" not in walked[1]
