import pytest
import torch


@pytest.fixture
def held(golden):
    """Holds a model to an original's record: its answers, names and number of parameters."""

    def hold(name, model, answer=None, after=lambda model: None, tolerance=1e-4):
        meta = golden.meta_of(name)
        aliases = meta.get("aliases") or {}
        golden.fill(model, aliases=aliases)
        after(model)
        with torch.no_grad():
            answers = (answer or model)(golden.seeded(*meta["inputs"][0]))
        result = golden.compare(name, answers, model)
        assert max(result["errors"]) < tolerance
        # the original may name a tensor twice
        assert not set(result["missing"]) - {*aliases, *aliases.values()}
        assert not result["extra"] + result["shapes"]
        assert result["parameters"][0] == result["parameters"][1]
        return meta, answers

    return hold


@pytest.fixture
def describe():
    """What data say to a network, for patches of these sizes."""

    def made(*patch, channels=1, classes=3, **more):
        count, axes = 3, len(patch)
        stages = {"kernels": [[3] * axes] * count, "strides": [[1] * axes, *[[2] * axes] * (count - 1)]}
        known = {"channels": channels, "num_classes": classes, "patch_size": list(patch), "model_size": "micro"}
        return {**known, **stages, **more}

    return made
