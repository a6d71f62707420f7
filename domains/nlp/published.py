"""Published language models: a folder with config.json and weights, or a name on the Hugging Face hub.

run = load("state-spaces/mamba-130m")      the model with its tokenizer, as predict.py takes it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..trained import Trained

TOKENIZER = "tokenizer.json"
MUST_AGREE = ("vocab_size",)  # of what a model is of and what data say
FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
# The models of state-spaces come without their tokenizer, which is GPT-NeoX's.
NEOX, NEOX_TOKENS = "EleutherAI/gpt-neox-20b", 50277


def is_published(where: str) -> bool:
    """Whether this, which is no run, names a published model: a folder laid out like one, or what could be a name on the hub."""
    path = Path(where).expanduser()
    return any((path / name).is_file() for name in FILES) if path.exists() else where.count("/") == 1


def read_weights(where: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of a published model, by the names they have here; what does not fit `model` is for the caller to say.

    Raises:
        UserError: see load_pretrained.
    """
    from .checkpoints import load_pretrained

    return load_pretrained(where).state_dict()


def load(where: str | Path, device: str = "cpu", tokenizer: str | Path | None = None) -> Trained:
    """A published language model on a device, and its tokenizer.

    Args:
        where: a folder, or a name on the hub.
        device: of the model.
        tokenizer: a tokenizer.json, or a folder that holds one; None: the model's own.

    Raises:
        UserError: see load_pretrained; no tokenizer, or one of another model.
    """
    import torch

    from ...data.nlp.tokenizer import load_tokenizer
    from ..trained import Trained
    from .checkpoints import load_pretrained, published_folder, read_config

    folder = published_folder(where)
    file = _tokenizer_file(tokenizer, folder, read_config(folder))
    tokens = Beginning(load_tokenizer(file))
    # A CPU is quickest in float32; a GPU computes in what the weights are published in.
    model = load_pretrained(folder, device, torch.float32 if device == "cpu" else None)
    if tokens.vocab_size > model.lm_head.out_features:
        raise UserError(
            "this tokenizer is not the model's", given=f"{tokens.vocab_size} tokens in {tokens.inner.name}",
            allowed=f"at most the model's {model.lm_head.out_features}", do=f"tokenizer=path/to/{TOKENIZER}",
        )  # fmt: skip
    describe = {
        "name": str(where), "task": "language_modelling", "tokenizer": tokens, "tokenizer_file": str(file),
        "vocab_size": tokens.vocab_size,
    }  # fmt: skip
    # A hub's folder is not the person's, so what is written goes to the working directory.
    return Trained(model, None, None, describe, device, Path())


def reading(run: Trained) -> dict[str, Any]:
    """The settings of data with which texts become the tokens of a model that `load` gave."""
    return {"tokenizer": run.describe["tokenizer_file"]}


class Beginning:
    """A tokenizer whose texts begin with the marks that its model was trained to see there."""

    def __init__(self, inner: Any):
        self.inner, self.vocab_size, self.end = inner, inner.vocab_size, inner.end

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text, the marks in front of it included."""
        return self.inner.beginning() + self.inner.encode(text)

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """UTF-8 bytes of tokens."""
        return self.inner.bytes_of(ids)


def _tokenizer_file(asked: str | Path | None, folder: Path, config: Mapping[str, Any]) -> Path:
    if asked is not None:
        path = Path(asked).expanduser()
        return path / TOKENIZER if path.is_dir() else path
    if (folder / TOKENIZER).is_file():
        return folder / TOKENIZER
    if "d_model" in config and config.get("vocab_size") == NEOX_TOKENS:
        return _neox()
    raise UserError(
        "this model has no tokenizer beside it", given=folder, allowed=f"a {TOKENIZER} in the folder, or named",
        do=f"tokenizer=path/to/{TOKENIZER}",
    )  # fmt: skip


def _neox() -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(NEOX, TOKENIZER))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"this model's tokenizer is {NEOX}'s, which cannot be fetched", given=str(error).split("\n")[0][:200],
            allowed="a network, or the file", do=f"tokenizer=path/to/{TOKENIZER}",
        ) from error  # fmt: skip
