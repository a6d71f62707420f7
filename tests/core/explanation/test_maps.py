import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.core.explanation import attribution, explain, hidden_attention, part_in_answer, raw, rollout
from polymamba.core.mixers import Mamba
from polymamba.core.stack import ResidualBlock, final_norm, make_norm, run_stack

DOUBLE = {"dtype": torch.float64}


class Model(nn.Module):
    def __init__(self, layers=2, scan="raster"):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            ResidualBlock(Mamba(6, d_state=4, scan=scan, **DOUBLE), make_norm("rms", 6, **DOUBLE))
            for _ in range(layers)
        )
        self.norm, self.head = make_norm("rms", 6, **DOUBLE), nn.Linear(6, 3, **DOUBLE)

    def forward(self, x, seq_idx=None):
        return self.head(final_norm(run_stack(self.layers, x, seq_idx=seq_idx), self.norm))


def tokens(seed=1):
    return torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def inside(model, x):
    """Matrices of each mixer, and each mixer's output, from the layers run by hand."""
    matrices, outputs, residual = [], [], x
    for layer in model.layers:
        given = layer.norm(residual)
        matrices.append(hidden_attention(layer.mixer, given))
        outputs.append(layer.mixer(given)[0])
        residual = residual + outputs[-1]
    return matrices, outputs, model.head(model.norm(residual))


def test_rollout_by_hand():
    first = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    second = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]])
    found = rollout([first, second])
    expected = torch.tensor([[1.0, 0.0], [0.5, 0.5]]) @ torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(rollout([torch.rand(2, 5, 5)] * 3).sum(-1), torch.ones(2, 5))


def test_raw_is_the_mean_over_channels_and_layers():
    model, x = Model(), tokens()
    matrices, _, _ = inside(model, x)
    torch.testing.assert_close(explain(model, x, method="raw"), torch.stack([m.mean(1) for m in matrices]).mean(0))
    torch.testing.assert_close(explain(model, x, method="raw", layers=[1]), matrices[1].mean(1))
    torch.testing.assert_close(raw([matrices[0]]), matrices[0])


def test_rollout_of_a_model_is_causal_and_sums_to_one():
    model, x = Model(), tokens()
    found = explain(model, x)
    matrices, _, _ = inside(model, x)
    torch.testing.assert_close(found, rollout([m.abs().mean(1) for m in matrices]))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 7, **DOUBLE))
    assert not found.triu(1).any()
    assert explain(Model(scan="bidirectional"), x).triu(1).any()


def test_attribution_weights_layers_by_the_scores_gradient():
    model, x = Model(), tokens()
    matrices, outputs, answer = inside(model, x)
    gradients = torch.autograd.grad(answer[:, -1, 1].sum(), outputs)
    weighted = []
    for matrix, gradient in zip((m.mean(1) for m in matrices), gradients, strict=True):
        for sample in range(2):
            low, high = matrix[sample].min(), matrix[sample].max()
            rows = ((matrix[sample] - low) / (high - low)).tril()
            weighted.append(rows * gradient[sample].clamp_min(0).max(-1).values[:, None])
    expected = torch.stack([rollout([weighted[s][None], weighted[2 + s][None]])[0] for s in range(2)])
    found = explain(model, x, method="attribution", score=lambda logits: logits[:, -1, 1])
    torch.testing.assert_close(found, expected)
    seen = torch.ones(2, 7, 7, dtype=torch.bool).tril()
    torch.testing.assert_close(found, attribution([m.mean(1) for m in matrices], gradients, [seen, seen]))
    assert not found.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_attribution_of_equal_matrices_is_finite():
    found = attribution([torch.ones(1, 3, 3)], [torch.ones(1, 3, 2)])
    torch.testing.assert_close(found[0], torch.eye(3))


def test_scaling_lifts_all_pairs_unless_told_who_sees_whom():
    matrix = torch.tensor([[[1.0, 0.0], [-1.0, 0.5]]])
    alike = torch.ones(1, 2, 3)
    torch.testing.assert_close(attribution([matrix], [alike])[0, 0], torch.tensor([2.0, 0.5]) / 2.5)
    seen = torch.ones(1, 2, 2, dtype=torch.bool).tril()
    torch.testing.assert_close(attribution([matrix], [alike], [seen])[0, 0], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    "how", [{}, {"method": "raw"}, {"method": "attribution", "score": lambda logits: logits[..., 0]}]
)
def test_packed_sequences_do_not_see_each_other(how):
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).expand(2, -1)
    found = explain(Model(), tokens(), seq_idx=seq_idx, **how)
    apart = seq_idx[:, :, None] != seq_idx[:, None]
    assert not found[apart].any()
    assert not found.triu(1).any()
    assert found.tril()[~apart].any()


def test_part_in_an_answer_is_what_is_taken_from_others():
    found = torch.tensor([[[0.9, 0.1, 0.0], [0.3, 0.6, 0.1], [0.2, 0.4, 0.4]]])
    torch.testing.assert_close(part_in_answer(found, [-1]), torch.tensor([[0.2, 0.4, 0.0]]))
    torch.testing.assert_close(part_in_answer(found, range(3)), torch.tensor([[0.5, 0.5, 0.1]]) / 3)
    assert found[0, 0, 0] == 0.9


def test_hooks_are_gone_even_after_an_error():
    model = Model()
    with pytest.raises(RuntimeError):
        explain(model, torch.randn(2, 7, 5, **DOUBLE))
    explain(model, tokens())
    assert not any(module._forward_hooks for module in model.modules())


def test_wrong_calls():
    model, x = Model(), tokens()
    for wrong in (
        {"method": "roll"},
        {"method": "attribution"},
        {"score": lambda y: y},
        {"layers": [2]},
        {"layers": []},
    ):
        with pytest.raises(UserError):
            explain(model, x, **wrong)
    with pytest.raises(UserError, match="no Mamba"):
        explain(nn.Linear(6, 6, **DOUBLE), x)
