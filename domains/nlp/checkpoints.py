"""Published language models: mamba_ssm's and transformers' files, read and written.

    model = load_pretrained("state-spaces/mamba-130m")          from the hub, or a local folder
    save_pretrained(model, "folder", naming="transformers")     config.json and model.safetensors

Both namings of Mamba and Mamba-2, and FalconMamba and Jamba, whose only naming is transformers'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...core.errors import UserError, check_choice
from ...core.ranges import OutOfRange
from . import checkpoint_jamba
from .checkpoint_configs import NAMINGS, arguments_of, config_of
from .models.language_model import LanguageModel

CONFIG, SAFETENSORS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
OURS, THEIRS, HEAD = "backbone.embedding.weight", "backbone.embeddings.weight", "lm_head.weight"


def load_pretrained(
    source: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None, **options: Any
) -> LanguageModel:
    """A published model with its weights.

    Args:
        source: a folder with config.json and weights, or a name on the Hugging Face hub, like state-spaces/mamba-130m.
        device, dtype: of the model; None: the CPU, and the dtype of the weights.
        options: further arguments of LanguageModel, like backend.

    Raises:
        UserError: no such folder or name, no network, a kind of model that is not known here, weights that do not fit.
    """
    folder = published_folder(source)
    config = read_config(folder)
    weights = _to_ours(_read_weights(folder), config)
    kinds = {tensor.dtype for name, tensor in weights.items() if name.endswith("in_proj.weight")}
    dtype = dtype or (kinds.pop() if len(kinds) == 1 else None)
    model = _empty(config, options, dtype)
    if model.tie_embeddings and OURS in weights:
        weights.setdefault(HEAD, weights[OURS])
    _check(weights, model, folder)
    expected = model.state_dict()
    model.load_state_dict(
        {name: tensor.to(device, expected[name].dtype) for name, tensor in weights.items()}, assign=True
    )
    if model.tie_embeddings:
        model.lm_head.weight = model.backbone.embedding.weight
    return model.eval()


def save_pretrained(model: LanguageModel, folder: str | Path, naming: str = "mamba_ssm", pickled: bool = False) -> Path:
    """Writes config.json and the weights so that the original package reads them; returns the folder.

    Args:
        naming: "mamba_ssm" or "transformers".
        pickled: pytorch_model.bin (what mamba_ssm itself reads) instead of model.safetensors.

    Raises:
        UserError: a model that the naming has no words for (attention layers, experts, Mamba-3, ...).
    """
    check_choice("naming", naming, NAMINGS)
    config = config_of(model, naming)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    if naming == "transformers":
        if model.tie_embeddings:
            del weights[HEAD]
        weights = _to_theirs(weights, model, config)
    if pickled:
        torch.save(weights, folder / PICKLED)
    else:
        save_file(weights, folder / SAFETENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def published_folder(source: str | Path) -> Path:
    """The folder itself, or the files of a name on the hub (config, weights, tokenizer), fetched where they are not yet here.

    Raises:
        UserError: no such folder or name, no network.
    """
    return Path(source) if Path(source).is_dir() else _from_hub(str(source))


def read_config(folder: Path) -> dict[str, Any]:
    """What a published model's config.json says.

    Raises:
        UserError: there is none, or it is no JSON.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / CONFIG}: {error}", do="give the folder of a published model") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG} is no model's configuration", given=type(config).__name__, allowed="{...}")
    return config


def _empty(config: Mapping[str, Any], options: Mapping[str, Any], dtype: torch.dtype | None) -> LanguageModel:
    """The model that config.json describes, without weights."""
    arguments = arguments_of(config)
    try:
        return LanguageModel(**arguments, **options, device="meta", dtype=dtype)
    except (TypeError, RuntimeError, OutOfRange) as error:
        # An argument of a mixer that is not known here, or a number that is none.
        raise UserError("config.json describes no model that can be built", given=str(error).split("\n")[0]) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, in one file or in parts that an index names."""
    for name, read in ((SAFETENSORS, load_file), (PICKLED, _unpickle)):
        index = folder / f"{name}.index.json"
        parts = [name] if (folder / name).is_file() else []
        if parts or index.is_file():
            try:
                if index.is_file():
                    parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
                return {key: tensor for part in parts for key, tensor in read(folder / part).items()}
            except (OSError, ValueError, KeyError, SafetensorError, RuntimeError, EOFError, UnpicklingError) as error:
                reason = str(error).split("\n")[0]
                raise UserError(f"cannot read the weights in {folder}: {reason}", do="fetch the files again") from error
    raise UserError("there are no weights in this folder", given=folder, allowed=f"{SAFETENSORS} or {PICKLED}")


def _unpickle(path: Path) -> dict[str, Tensor]:
    # Nothing but tensors is ever unpickled: a file from elsewhere may hold code.
    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise ValueError(f"{path.name} holds something else than tensors by name")
    return found


def _to_ours(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    if config.get("model_type") == "jamba":
        return checkpoint_jamba.to_ours(weights)
    return {OURS if name == THEIRS else name: tensor for name, tensor in weights.items()}


def _to_theirs(weights: Mapping[str, Tensor], model: LanguageModel, config: Mapping[str, Any]) -> dict[str, Tensor]:
    if config["model_type"] == "jamba":
        return checkpoint_jamba.to_theirs(weights, model)
    return {THEIRS if name == OURS else name: tensor for name, tensor in weights.items()}


def _check(weights: Mapping[str, Tensor], model: LanguageModel, folder: Path) -> None:
    """Raises UserError where weights and model differ in a name or a shape."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differ = [
        f"{name}: {found.get(name, 'missing')}, needs {shape}"
        for name, shape in expected.items()
        if found.get(name) != shape
    ]
    differ += [f"{name}: not known" for name in found if name not in expected]
    if differ:
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise UserError(
            f"the weights in {folder} are not what its config.json says", given="; ".join(differ[:4]) + more
        )


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            "there is no such folder", given=name, allowed="a folder, or a hub name like state-spaces/mamba-130m"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json"]))
        # A kind of model that is not known here is said before gigabytes are fetched.
        arguments_of(read_config(folder))
        snapshot_download(name, allow_patterns=["model*.safetensors"])
        if not any(folder.glob("model*.safetensors")):
            snapshot_download(name, allow_patterns=["pytorch_model*.bin"])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot fetch {name} from the hub", given=str(error).split("\n")[0][:200],
            allowed="a name that exists there and a network, or a folder",
            do="without a network: copy the folder here and give its path",
        ) from error  # fmt: skip
    return folder
