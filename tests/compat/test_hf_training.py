"""Installing changes nothing of what transformers trains: losses, logits and every gradient, held to transformers' own code.

In float64, where this core's reference answers; transformers' own code goes through float32 in places, which is what is left.
Rows of padding itself are not compared: no loss reads them. Transformers reads the weight of a Mamba's `dt_proj` past the
module, so what LoRA or a hook adds there counts neither before nor after.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from polymamba import compat

transformers = pytest.importorskip(
    "transformers", reason="transformers is in the extra: pip install 'polymamba[bench]'"
)

SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
HEADS = {
    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "vocab_size": 30, "hidden_size": 16,
    "num_hidden_layers": 2,
}  # fmt: skip
GROUPED = {"mamba_d_state": 4, "mamba_d_head": 8, "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_chunk_size": 4}
MODELS = {
    "Mamba": SMALL | {"use_bias": True},
    "FalconMamba": SMALL,
    "Mamba2": SMALL | {"head_dim": 8, "num_heads": 4, "n_groups": 2, "chunk_size": 4},
    "Jamba": HEADS | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4},
    "Bamba": HEADS | GROUPED | {"attn_layer_indices": [1]},
    "Zamba2": HEADS | {
        "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 4, "mamba_headdim": 8, "n_mamba_heads": 4,
        "mamba_ngroups": 2, "chunk_size": 4, "num_mem_blocks": 1, "adapter_rank": 4,
    },
    "FalconH1": HEADS | GROUPED | {"mamba_d_ssm": 32, "head_dim": 8},
    "GraniteMoeHybrid": HEADS | GROUPED | {
        "layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1,
        "shared_intermediate_size": 16,
    },
    "NemotronH": {key: value for key, value in HEADS.items() if key != "num_hidden_layers"} | {
        "layers_block_type": ["mamba", "attention"], "ssm_state_size": 4, "mamba_head_dim": 8, "mamba_num_heads": 4,
        "n_groups": 2, "chunk_size": 4, "head_dim": 8,
    },
}  # fmt: skip
IDS = torch.randint(1, 30, (3, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [1] * 7])
pytestmark = pytest.mark.filterwarnings("ignore")


class LoRA(nn.Linear):
    """A linear layer with a low-rank addition, as peft's a subclass that shows the weight it was made from."""

    def __init__(self, base: nn.Linear):
        nn.Module.__init__(self)
        self.weight, self.bias = base.weight, base.bias
        self.in_features, self.out_features = base.in_features, base.out_features
        self.a = nn.Parameter(0.3 * torch.randn(2, base.in_features).to(base.weight))
        self.b = nn.Parameter(0.3 * torch.randn(base.out_features, 2).to(base.weight))

    def forward(self, x):
        return super().forward(x) + x @ self.a.T @ self.b.T


class Around(nn.Module):
    """The same as a wrapper, as peft's own."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer, self.added = base, LoRA(base)

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x):
        return self.base_layer(x) + x @ self.added.a.T @ self.added.b.T


def with_lora(model: nn.Module) -> None:
    """On every linear layer, of one kind and of the other in turn."""
    model.requires_grad_(False)
    linears = [(m, *child) for m in model.modules() for child in m.named_children() if type(child[1]) is nn.Linear]
    for number, (module, name, child) in enumerate(linears):
        setattr(module, name, (LoRA, Around)[number // 2 % 2](child))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith((".a", ".b")))


def with_hooks(model: nn.Module) -> None:
    """On every linear layer and norm one kind of hook, all of them changing something; every other parameter frozen."""
    for number, module in enumerate(
        m for m in model.modules() if isinstance(m, nn.Linear) or "Norm" in type(m).__name__
    ):
        if number % 3 == 0:
            module.register_forward_hook(lambda module, given, said: 1.1 * said)
        elif number % 3 == 1:
            module.register_forward_pre_hook(lambda module, given: (1.1 * given[0], *given[1:]))
        else:
            module.register_full_backward_hook(
                lambda module, into, out: tuple(g if g is None else 1.1 * g for g in into)
            )
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)


CHANGES = {
    "checkpointing": lambda model: model.gradient_checkpointing_enable(),
    "LoRA": with_lora,
    "hooks, half of it frozen": with_hooks,
}


@pytest.fixture(autouse=True)
def _restored():
    yield
    compat.uninstall()


def made(name: str, dtype: torch.dtype, **options) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MODELS[name], **options)
    config._experts_implementation = "eager"  # the other ones know no float64
    model = getattr(transformers, f"{name}ForCausalLM")(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape).to(parameter))
    return model


def step(model: nn.Module, mask: torch.Tensor | None = MASK, train: bool = True) -> dict[str, torch.Tensor]:
    """Loss, logits of real tokens and gradients of a step."""
    model.train(train)
    model.zero_grad()
    real = torch.ones_like(IDS) if mask is None else mask
    out = model(IDS, attention_mask=mask, labels=IDS.masked_fill(real == 0, -100))
    out.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients | {"loss": out.loss.detach(), "logits": out.logits.detach()[real.bool()]}


def assert_same(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    most = max(t.norm() for name, t in expected.items() if name != "logits")
    for name, wanted in expected.items():
        error = (found[name] - wanted).norm() / wanted.norm().clamp_min(1e-6 * most)
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step(name, change):
    model = made(name, torch.float64)
    CHANGES[change](model)
    expected = step(model)
    compat.install()
    assert_same(step(model), expected, 5e-6)


@pytest.mark.parametrize("name", MODELS)
def test_in_float32_tied_and_evaluating(name):
    model = made(name, torch.float32, tie_word_embeddings=True)
    expected, tested, alone = step(model), step(model, train=False), step(model, None)
    compat.install()
    assert_same(step(model), expected, 2e-4)
    assert_same(step(model, train=False), tested, 2e-4)
    assert_same(step(model, None), alone, 2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_generation(name):
    """With the cache as without, and behind padding as without it, where transformers' own code does so too."""
    model = made(name, torch.float32).eval()

    def run() -> list[list[int]]:
        def tokens(ids, mask, use_cache=True):
            more = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
            return model.generate(ids, attention_mask=mask, use_cache=use_cache, **more)[:, ids.shape[1] :].tolist()

        whole = torch.ones_like(IDS)
        return [
            tokens(IDS, whole),
            tokens(IDS, whole, False),
            tokens(IDS[:1], MASK[:1]),
            tokens(IDS[:1, 2:], MASK[:1, 2:]),
        ]

    with torch.no_grad():
        expected = run()
        compat.install()
        assert run() == expected


LATER = """
from polymamba import compat
compat.install()
from transformers.models.bamba import modeling_bamba as bamba
from transformers.models.mamba import modeling_mamba as mamba
from polymamba.compat import loaded
for function in (bamba.mamba2_split_conv1d_scan_combined, mamba.mamba_inner_fn):
    [cells] = loaded._choices(function)
    assert cells["implementation"].cell_contents is loaded.declined
    assert function(1, 2, headdim=3) is None
[cells] = loaded._choices(bamba.mamba2_chunk_scan)
assert cells["implementation"].cell_contents.__module__ == "polymamba.compat.duality"
compat.uninstall()
[cells] = loaded._choices(bamba.mamba2_split_conv1d_scan_combined)
assert cells["implementation"].cell_contents is cells["torch_function"].cell_contents
print("good")
"""


def test_models_imported_after_install_train_in_steps_too():
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True)
    assert done.stdout == "good\n", done.stderr
