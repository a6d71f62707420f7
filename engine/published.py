"""predict.py with a published model: a folder with config.json and weights, or a name on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .command_line.groups import Groups

TOKENIZER = "tokenizer.json"
FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# The models of state-spaces come without their tokenizer, which is GPT-NeoX's.
NEOX, NEOX_TOKENS = "EleutherAI/gpt-neox-20b", 50277
SETTINGS = ("trainer.threads", "trainer.accelerator")


def is_published(where: str) -> bool:
    """Whether `ckpt=` names a published model: a folder laid out like one, or what could be a name on the hub."""
    path = Path(where)
    if path.exists():
        return any((path / name).is_file() for name in FILES) and not (path / "config.yaml").exists()
    # A name under a folder that is here, or under runs/, is a run that is not there.
    return bool(HUB_NAME.fullmatch(where)) and path.parts[0] != "runs" and not Path(path.parts[0]).exists()


def predict_published(where: str, typed: Sequence[str], groups: Groups, method: str | None = None) -> str | Path:
    """Lets a published model go on with a text, or draws what its next token rests on.

    Args:
        where: a folder, or a name on the hub.
        typed: the other arguments: predict's, `tokenizer=` and the settings of the trainer that matter here.
        method: how to explain, one of core.explanation.METHODS; None: go on with the text.

    Returns:
        the new text, or the picture's file.

    Raises:
        UserError: see load_pretrained; no tokenizer, or one of another model; see explain_published.
    """
    from ..core.explanation import check_method
    from .explain import explain_published, read_prompt
    from .predict import go_on, read_wanted

    if method is not None:
        check_method(method, "explain")
    settings = [each for each in typed if each.startswith(("data.", "trainer."))]
    tokenizer = [each.partition("=")[2] for each in typed if each.startswith("tokenizer=")]
    asked = [each for each in typed if each not in settings and not each.startswith("tokenizer=")]
    wanted = read_wanted(asked) if method is None else read_prompt(asked)
    device = _device(settings, groups)
    model, tokens = load(where, tokenizer[-1] if tokenizer else None, device)
    return go_on(model, tokens, wanted) if method is None else explain_published(model, tokens, method, wanted)


def load(where: str | Path, tokenizer: str | Path | None = None, device: str = "cpu") -> tuple[Any, Any]:
    """A published language model on a device, and its tokenizer.

    Args:
        where: a folder, or a name on the hub.
        tokenizer: a tokenizer.json, or a folder that holds one; None: the model's own.

    Raises:
        UserError: as predict_published.
    """
    import torch

    from ..domains.nlp.checkpoints import load_pretrained, published_folder, read_config

    folder = published_folder(where)
    config = read_config(folder)
    tokens = Beginning(_tokenizer(tokenizer, folder, config))
    # A CPU is quickest in float32; a GPU computes in what the weights are published in.
    model = load_pretrained(folder, device, torch.float32 if device == "cpu" else None)
    if tokens.vocab_size > model.lm_head.out_features:
        raise UserError(
            "this tokenizer is not the model's", given=f"{tokens.vocab_size} tokens in {tokens.inner.name}",
            allowed=f"at most the model's {model.lm_head.out_features}", do=f"tokenizer=path/to/{TOKENIZER}",
        )  # fmt: skip
    return model, tokens


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


def _tokenizer(asked: str | Path | None, folder: Path, config: Mapping[str, Any]) -> Any:
    from ..data.nlp.tokenizer import load_tokenizer

    if asked is not None:
        path = Path(asked).expanduser()
        return load_tokenizer(path / TOKENIZER if path.is_dir() else path)
    if (folder / TOKENIZER).is_file():
        return load_tokenizer(folder / TOKENIZER)
    if "d_model" in config and config.get("vocab_size") == NEOX_TOKENS:
        return load_tokenizer(_neox())
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


def _device(typed: Sequence[str], groups: Groups) -> str:
    from .command_line.change_stored import change_stored
    from .command_line.compose import compose_group
    from .command_line.config import TrainerSettings
    from .command_line.convert import from_mapping
    from .training.hardware import choose_hardware

    usual = {"domain": "nlp", "trainer": compose_group("trainer", "default", groups, "nlp")}
    values = change_stored(usual, typed, groups, SETTINGS, "a published model's data and training are not known here")
    return choose_hardware(from_mapping(TrainerSettings, values["trainer"], "trainer.")).device
