"""mamba_ssm's language model (models/)."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import asdict, dataclass, field

from torch import Tensor

from ..domains.nlp.checkpoint_configs import arguments_of, config_of
from ..domains.nlp.checkpoints import load_pretrained, published_folder, read_config, save_pretrained
from ..domains.nlp.models.language_model import LanguageModel
from .generation import GenerationMixin, InferenceParams

CausalLMOutput = namedtuple("CausalLMOutput", ["logits", "states"])


@dataclass
class MambaConfig:
    """mamba_ssm's configuration of a language model."""

    d_model: int = 2560
    d_intermediate: int = 0
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict = field(default_factory=dict)
    attn_layer_idx: list = field(default_factory=list)
    attn_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


class MambaLMHeadModel(GenerationMixin, LanguageModel):
    """mamba_ssm's MambaLMHeadModel: (batch, length) token numbers to an object with `logits`."""

    def __init__(self, config: MambaConfig, initializer_cfg: dict | None = None, device=None, dtype=None):
        super().__init__(**arguments_of(asdict(config)), **(initializer_cfg or {}), device=device, dtype=dtype)
        self.config = config

    def forward(
        self, input_ids: Tensor, position_ids=None, inference_params: InferenceParams | None = None, num_last_tokens: int = 0,
        states=None, seq_idx: Tensor | None = None,
    ):  # fmt: skip
        """Scores of the next token, and the states to go on from; arguments as of LanguageModel, and

        Args:
            inference_params: where the states are kept: the call goes on where the one before ended (any number of tokens).
            num_last_tokens: only the scores of this many last tokens; 0: of all.
        """
        kept = {} if inference_params is None else inference_params.key_value_memory_dict
        if inference_params is not None and inference_params.seqlen_offset > 0:
            states = kept["states"]
        hidden, kept["states"] = self.hidden(input_ids, states, seq_idx)
        logits = self.lm_head(hidden[:, -num_last_tokens:] if num_last_tokens else hidden)
        return CausalLMOutput(logits, kept["states"])

    @classmethod
    def from_pretrained(cls, pretrained_model_name, device=None, dtype=None, **_) -> MambaLMHeadModel:
        """A published model, from a folder or the hub."""
        loaded = load_pretrained(pretrained_model_name, device, dtype)
        config = MambaConfig(**config_of(loaded, "mamba_ssm"))
        model = cls(config, device="meta", dtype=next(loaded.parameters()).dtype)
        model.load_state_dict(loaded.state_dict(), assign=True)
        if config.tie_embeddings:
            model.lm_head.weight = model.backbone.embedding.weight
        return model.eval()

    def save_pretrained(self, save_directory) -> None:
        """config.json and pytorch_model.bin, as upstream writes them."""
        save_pretrained(self, save_directory, naming="mamba_ssm", pickled=True)

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype=None, **_) -> dict:
        """Nothing to allocate: states are made by the first call."""
        return {}


def load_config_hf(model_name) -> dict:
    """What config.json says, of a folder or a name on the hub."""
    return read_config(published_folder(model_name))


def load_state_dict_hf(model_name, device=None, dtype=None) -> dict[str, Tensor]:
    """A published model's weights by mamba_ssm's names."""
    return load_pretrained(model_name, device, dtype).state_dict()
