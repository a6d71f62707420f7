import pytest
import torch
from torch import nn

from polymamba.domains.audio.models.aum import AuM
from polymamba.domains.audio.models.ssamba import MaskedPatches, clusters

MASKED = [3, 7, 8, 15, 16, 20, 33, 40, 41, 50]


class Published(nn.Module):
    """All that stands in a published checkpoint: the Audio Mamba `v`, what it is pre-trained with, and the head of tagging."""

    def __init__(self):
        super().__init__()
        self.v = AuM(1000, embed_dim=96, depth=4, class_token="front", norm_twice=True)
        objective = MaskedPatches(96, (16, 16))
        self.mask_embed, self.cpredlayer, self.gpredlayer = (
            objective.mask_embed,
            objective.cpredlayer,
            objective.gpredlayer,
        )
        self.objective = [objective]
        self.mlp_head = nn.Sequential(nn.LayerNorm(96), nn.Linear(96, 35))
        self.p_input_fdim, self.p_input_tdim = (nn.Parameter(torch.tensor(128), requires_grad=False) for _ in range(2))


def test_meets_the_record(meets_the_record, golden):
    frames = golden.seeded(2, 128, 128)

    def answers(model):
        tokens = model.v.features(frames)
        guessed = model.objective[0](model.v, frames, torch.tensor([MASKED] * 2))
        logits = [model.mlp_head(each) for each in (tokens[:, 1:].mean(1), tokens[:, 0])]
        return [*logits, *(each[None] for each in guessed)]

    meets_the_record(
        "audio_ssamba", Published(), answers, lambda name: name.replace("pos_embed.pos_embed", "pos_embed")
    )


@pytest.mark.parametrize("place", ["middle", "front"])
def test_what_is_hidden_is_not_seen(place):
    torch.manual_seed(0)
    model = AuM(2, 16, 16, 4, 16, 1, class_token=place).eval()
    objective, hidden = MaskedPatches(16, (4, 4)), torch.tensor([[0, 7, 8, 15]])
    frames = torch.randn(1, 16, 16)
    other = frames.clone()
    other[:, 12:, 4:8] += 3  # the patch in row 1 and column 3: number 7
    found = [objective(model, each, hidden) for each in (frames, other)]
    assert found[0].error != found[1].error
    seen = [model.encode(objective_tokens(model, objective, each, hidden)) for each in (frames, other)]
    torch.testing.assert_close(*seen)


def test_strips_are_guessed_too():
    model = AuM(2, 9, 16, 16, 8, 1, patch_frames=2)
    objective, hidden = MaskedPatches(8, model.patch_embed.proj.kernel_size), torch.tensor([[0, 4]])
    found = objective(model, torch.randn(3, 9, 16), hidden.expand(3, -1))
    assert all(each.isfinite() for each in found)
    assert objective.gpredlayer[2].out_features == 16 * 2


def objective_tokens(model, objective, frames, hidden):
    tokens = model.patch_embed(frames)
    tokens[:, hidden[0]] = objective.mask_embed
    return tokens


@pytest.mark.parametrize(("grid", "count"), [((8, 8), 10), ((2, 5), 4), ((1, 1), 1), ((3, 4), 12)])
def test_patches_are_hidden_in_squares(grid, count):
    torch.manual_seed(0)
    hidden = clusters(grid, 50, count)
    assert hidden.shape == (50, count)
    assert all(len(set(each)) == count for each in hidden.tolist())
    assert hidden.min() >= 0
    assert hidden.max() < grid[0] * grid[1]
    if grid == (8, 8):
        beside = [sum(n + 1 in row for n in row) for row in hidden.tolist()]
        assert sum(beside) / 50 > 4  # by chance it would be 1.4
