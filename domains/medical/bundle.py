"""A MONAI bundle of a trained segmentation: `predict.py ckpt=<run> bundle=FOLDER`; MONAI predicts with it, without this package.

The network is TorchScript (core/standalone.py), for one window of the patch's sizes; reading, normalising, resampling, windows and
writing are MONAI's and PyTorch's in configs/inference.json, in the order in which `predict` does them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ...core.standalone import standalone
from ..trained import Answer, Trained

RUN = "python -m monai.bundle run --config_file {folder}/configs/inference.json --bundle_root {folder} --input scan.nii.gz"


def write_bundle(run: Trained, folder: Path, overlap: float, kept: Sequence[str]) -> Answer:
    """Writes a run's bundle.

    Args:
        overlap: share of a window that the next one covers too. kept: the classes of which the largest part alone is kept.

    Raises:
        UserError: images of two axes, or a network that cannot be written as TorchScript.
    """
    plan, names = run.data.volumes().plan, [str(name) for name in run.describe["classes"]]
    if plan.axes != 3:
        raise UserError(
            "a bundle is of volumes", given=f"{run.folder}: {plan.axes} axes", allowed="3 axes, NIfTI files"
        )
    patch = tuple(run.describe["patch_size"])
    example = torch.randn(1, plan.channels, *patch, generator=torch.Generator().manual_seed(0))
    model = run.model.cpu()
    network = standalone(model, example)
    with torch.no_grad():
        expected = model(example)
        apart = float((network(example) - expected).abs().max() / expected.abs().max())
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "models" / "model.ts"
    network.save(str(path.with_suffix(".tmp")))
    os.replace(path.with_suffix(".tmp"), path)
    how = RUN.format(folder=folder)
    files = {
        "configs/metadata.json": json.dumps(_metadata(run, plan, names), indent=2),
        "configs/inference.json": json.dumps(
            _inference(plan, patch, overlap, [names.index(name) for name in kept]), indent=2
        ),
        "docs/README.md": f"# {run.describe['name']}\n\n```\npip install 'monai[fire,nibabel,tqdm,scipy]'\n{how}\n```\n",
    }
    for name, text in files.items():
        part = folder / f"{name}.tmp"
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, folder / name)
    lines = [
        f"  network   TorchScript, one window of {patch}: {apart:.1e} of its largest logit apart from the run's",
        f"  run it    {how}",
    ]
    return Answer(lines, [path, *(folder / name for name in files)])


def _metadata(run: Trained, plan: Any, names: Sequence[str]) -> dict[str, Any]:
    patch = list(run.describe["patch_size"])
    image = {"type": "image", "format": "magnitude", "num_channels": plan.channels, "spatial_shape": patch}
    image |= {"dtype": "float32", "value_range": [], "is_patch_data": True, "channel_def": {"0": "image"}}
    answer = {"type": "image", "format": "segmentation", "num_channels": len(names), "spatial_shape": patch}
    answer |= {"dtype": "float32", "value_range": [], "is_patch_data": True}
    answer["channel_def"] = {str(number): name for number, name in enumerate(names)}
    versions = {f"{name}_version": importlib.metadata.version(package) for name, package in (
        ("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy"),
    )}  # fmt: skip
    return {
        "version": "0.1.0", "changelog": {"0.1.0": "exported from a trained run"}, **versions,
        "required_packages_version": {name: importlib.metadata.version(name) for name in ("nibabel", "scipy")},
        "name": f"{run.describe['name']} segmentation", "task": f"segmentation of {', '.join(names[1:])}",
        "description": f"a network trained on {run.describe['name']}", "authors": "", "copyright": "",
        "label_values": dict(zip(names, plan.values, strict=True)),
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
    }  # fmt: skip


def _inference(plan: Any, patch: Sequence[int], overlap: float, kept: Sequence[int]) -> dict[str, Any]:
    sizes = "[max(1, round(n * a / b)) for n, a, b in zip(d['image'].shape[1:], d['image'].pixdim.tolist(), spacing)]"
    resize = "torch.nn.functional.interpolate(d['{key}'][None], size={sizes}, mode='trilinear')[0]"
    before: list[Any] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        _normalised(plan),
        "$lambda d: {**d, 'sizes': tuple(d['image'].shape[1:])}",
    ]
    if plan.spacing:
        spacing = list(plan.spacing)
        before.append(
            "$lambda d, spacing=" + str(spacing) + ": {**d, 'image': " + resize.format(key="image", sizes=sizes) + "}"
        )
    after: list[Any] = [
        "$lambda d: {**d, 'pred': d['pred'].softmax(0)}",
        "$lambda d: {**d, 'pred': " + resize.format(key="pred", sizes="d['sizes']") + "}",
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        *({"_target_": "Lambdad", "keys": "pred", "func": _largest(number)} for number in kept),
    ]
    if tuple(plan.values) != tuple(range(len(plan.values))):
        labels = {"orig_labels": list(range(len(plan.values))), "target_labels": list(plan.values)}
        after.append({"_target_": "MapLabelValued", "keys": "pred", **labels})
    wide = "np.uint8" if min(plan.values) >= 0 and max(plan.values) < 256 else "np.int16"
    written = {"output_dir": "@output_dir", "output_postfix": "", "separate_folder": False, "resample": False}
    after += [
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
        {"_target_": "SaveImaged", "keys": "pred", "dtype": f"${wide}", "output_dtype": f"${wide}", **written},
    ]
    inferer = {"roi_size": list(patch), "sw_batch_size": 1, "overlap": overlap, "mode": "gaussian"}
    return {
        "imports": ["$import glob", "$import os", "$import numpy as np", "$import torch", "$from scipy import ndimage"],
        "bundle_root": ".",
        "input": "scan.nii.gz",
        "output_dir": "$@bundle_root + '/segmented'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device).eval()",
        "files": "$sorted(glob.glob(os.path.join(@input, '*.nii*'))) if os.path.isdir(@input) else [@input]",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": "SlidingWindowInferer", **inferer},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "one": (
            "$lambda d, network=@network, inferer=@inferer, device=@device: "
            "{**d, 'pred': inferer(d['image'][None].to(device), network)[0].cpu()}"
        ),
        "run": [
            "$torch.set_grad_enabled(False)",
            "$list(map(@postprocessing, map(@one, map(@preprocessing, [{'image': file} for file in @files]))))",
        ],
    }  # fmt: skip


def _normalised(plan: Any) -> Mapping[str, Any]:
    if plan.normalisation == "ct":
        low, high = ((end - plan.mean) / max(plan.std, 1e-6) for end in (plan.low, plan.high))
        ends = {"a_min": plan.low, "a_max": plan.high, "b_min": low, "b_max": high, "clip": True}
        return {"_target_": "ScaleIntensityRanged", "keys": "image", **ends}
    return {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}


def _largest(number: int) -> str:
    """MONAI's own transform would need another package (scikit-image)."""
    parts = f"ndimage.label((y[0] == {number}).numpy())[0]"
    return (
        f"$lambda y: torch.where((y == {number}) & torch.from_numpy((lambda parts: (parts > 0) & (parts != "
        f"np.bincount(parts.ravel(), minlength=2)[1:].argmax() + 1))({parts}))[None], 0, y)"
    )
