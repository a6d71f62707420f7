"""mamba_ssm's language model (models/)."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import asdict, dataclass, field

from torch import Tensor, nn

from ..core.linear import applied
from ..domains.nlp.checkpoint_configs import arguments_of, config_of
from ..domains.nlp.checkpoints import load_pretrained, published_folder, read_config, save_pretrained
from ..domains.nlp.models.language_model import LanguageModel
from .blocks import MixerModel
from .generation import GenerationMixin, InferenceParams

CausalLMOutput = namedtuple("CausalLMOutput", ["logits"])


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


class MambaLMHeadModel(GenerationMixin, nn.Module):
    """mamba_ssm's MambaLMHeadModel: (batch, length) token numbers to an object with `logits`."""

    def __init__(self, config: MambaConfig, initializer_cfg: dict | None = None, device=None, dtype=None):
        super().__init__()
        self.config, self.vocab_size, multiple = config, config.vocab_size, config.pad_vocab_size_multiple
        padded = -(-config.vocab_size // multiple) * multiple
        self.backbone = MixerModel(
            config.d_model, config.n_layer, config.d_intermediate, padded, config.ssm_cfg, config.attn_layer_idx, config.attn_cfg,
            rms_norm=config.rms_norm, initializer_cfg=initializer_cfg, fused_add_norm=config.fused_add_norm,
            residual_in_fp32=config.residual_in_fp32, device=device, dtype=dtype,
        )  # fmt: skip
        self.lm_head = nn.Linear(config.d_model, padded, bias=False, device=device, dtype=dtype)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Where the config asks for it, the head's weight is the embedding's."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def forward(
        self, input_ids: Tensor, position_ids=None, inference_params: InferenceParams | None = None, num_last_tokens: int = 0,
        **mixer_kwargs,
    ) -> CausalLMOutput:  # fmt: skip
        """Scores of the next token.

        Args:
            inference_params: where the caches are kept: the call goes on where the one before ended (any number of tokens).
            num_last_tokens: only the scores of this many last tokens; 0: of all.
            mixer_kwargs: for the mixers, like seq_idx for Mamba-2 and Mamba-3.
        """
        hidden = self.backbone(input_ids, inference_params=inference_params, **mixer_kwargs)
        return CausalLMOutput(applied(self.lm_head, hidden[:, -num_last_tokens:] if num_last_tokens else hidden))

    @classmethod
    def from_pretrained(cls, pretrained_model_name, device=None, dtype=None, **_) -> MambaLMHeadModel:
        """A published model, from a folder or the hub."""
        loaded = load_pretrained(pretrained_model_name, device, dtype)
        model = cls(MambaConfig(**config_of(loaded, "mamba_ssm")), device="meta", dtype=next(loaded.parameters()).dtype)
        model.load_state_dict(loaded.state_dict(), assign=True)
        model.tie_weights()
        return model.eval()

    def save_pretrained(self, save_directory) -> None:
        """config.json and pytorch_model.bin, as upstream writes them."""
        model = LanguageModel(**arguments_of(asdict(self.config)), device="meta", dtype=self.lm_head.weight.dtype)
        model.load_state_dict(self.state_dict(), assign=True)
        save_pretrained(model, save_directory, naming="mamba_ssm", pickled=True)

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype=None, **kwargs) -> dict:
        """Every layer's empty cache, by its number."""
        return self.backbone.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)


def load_config_hf(model_name) -> dict:
    """What config.json says, of a folder or a name on the hub."""
    return read_config(published_folder(model_name))


def load_state_dict_hf(model_name, device=None, dtype=None) -> dict[str, Tensor]:
    """A published model's weights by mamba_ssm's names."""
    return load_pretrained(model_name, device, dtype).state_dict()
