"""A model of two stages, made of core parts: its grids in pictures of scans and in hidden attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.core.explanation import METHODS, explain, explain_stages, mean_hidden_attention
from polymamba.core.mixers import Attention, Mamba
from polymamba.core.scans import Grid
from polymamba.core.scans.draw import draw_stages
from polymamba.core.stack import ResidualBlock, final_norm, make_norm, run_stack
from polymamba.core.stages import grids_of
from polymamba.domains.vision.models.vim import Vim


class TwoStages(nn.Module):
    """Mamba on 6 x 5 tokens, then on 3 x 3 with attention behind it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleList(self._block(Mamba(8, scan="cross", axes=2), 8) for _ in range(2))
        self.merge = nn.Conv2d(8, 12, 2, 2, padding=(0, 1))
        self.second = nn.ModuleList(
            [self._block(Mamba(12, scan="skip", axes=2), 12), self._block(Attention(12, 2), 12)]
        )
        self.norm, self.head = make_norm("rms", 12), nn.Linear(12, 3)
        self.grids = (Grid((6, 5)), Grid((3, 3)))

    @staticmethod
    def _block(mixer: nn.Module, channels: int) -> ResidualBlock:
        return ResidualBlock(mixer, make_norm("rms", channels))

    def forward(self, x):
        result = run_stack(self.first, x, self.grids[0])
        image = (result.residual + result.hidden).mT.unflatten(-1, self.grids[0].sizes)
        result = run_stack(self.second, self.merge(image).flatten(2).mT, self.grids[1])
        return self.head(final_norm(result, self.norm).mean(1))


def score(answer):
    return answer[:, 1]


@pytest.mark.parametrize("method", METHODS)
def test_every_stage_has_its_map(method):
    model, x = TwoStages(), torch.randn(2, 30, 8)
    maps = explain_stages(model, x, method=method, score=score if method == "attribution" else None)
    assert [tuple(each.shape) for each in maps] == [(2, 30, 30), (2, 9, 9)]
    assert all(each.isfinite().all() and each.any() for each in maps)
    for number, layers in ((0, (0, 1)), (1, (2, 3))):
        alone = explain(model, x, method=method, score=score if method == "attribution" else None, layers=layers)
        torch.testing.assert_close(maps[number], alone, rtol=0, atol=0)


def test_a_map_is_the_mean_of_its_own_stage():
    model, x, seen = TwoStages(), torch.randn(1, 30, 8), []
    for block in [*model.first, *model.second]:
        block.mixer.register_forward_pre_hook(lambda mixer, given: seen.append((mixer, given[0], given[1])))
    maps = explain_stages(model, x, method="raw")
    for stage, found in zip((seen[:2], seen[2:]), maps, strict=True):
        matrices = [mean_hidden_attention(mixer, tokens, grid) for mixer, tokens, grid in stage]
        torch.testing.assert_close(found, sum(matrices) / 2)


def test_there_is_no_map_across_stages():
    with pytest.raises(UserError, match="explain_stages"):
        explain(TwoStages(), torch.randn(1, 30, 8))


def test_grids_that_no_mixer_walks_are_refused():
    model = TwoStages()
    model.merge = nn.Conv2d(8, 12, 2, 2)
    model.grids = (Grid((6, 5)), Grid((3, 2)), Grid((1, 1)))
    with pytest.raises(UserError, match="other grids than it says"):
        explain_stages(model, torch.randn(1, 30, 8))


def test_a_plain_stack_has_one_stage():
    vim = Vim(16, 4, embed_dim=8, depth=2, num_classes=3, class_token="middle")
    assert grids_of(vim) == (vim.grid,)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(explain_stages(vim, x)[0], explain(vim, x), rtol=0, atol=0)


def test_a_model_that_does_not_say_its_grids():
    with pytest.raises(UserError, match="does not say the grids"):
        explain_stages(nn.Linear(2, 2), torch.randn(1, 2))


def test_pictures_of_the_stages(tmp_path):
    file = tmp_path / "scan.png"
    figure = draw_stages("cross", grids_of(TwoStages()), file=file)
    assert file.stat().st_size > 0
    assert [len([axes for axes in part.axes if axes.get_title()]) for part in figure.subfigs] == [4, 4]
    assert [part._suptitle.get_text() for part in figure.subfigs] == ["cross on 6×5 tokens", "cross on 3×3 tokens"]
    figure = draw_stages(["raster", "skip"], [(4, 4), (2, 2)])
    assert [len([axes for axes in part.axes if axes.get_title()]) for part in figure.subfigs] == [1, 4]
    with pytest.raises(UserError, match="Every stage needs a scan"):
        draw_stages(["raster"], [(4, 4), (2, 2)])
