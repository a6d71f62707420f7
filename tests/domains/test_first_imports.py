"""A library's first import may fall into the building of a model of sizes alone: what it makes for itself is real all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUILT = {
    "unet": "from polymamba.domains.vision.models.unet import build\n"
    "make = lambda: build({'channels': 3, 'num_classes': 2, 'model_size': 'micro'})",
    "transformer_lm": "from polymamba.domains.nlp.models.transformer import build\n"
    "make = lambda: build({'vocab_size': 9, 'length': 8, 'model_size': 'micro'})",
}


@pytest.mark.parametrize("model", BUILT)
def test_tensors_of_libraries_are_real(model):
    code = f"{BUILT[model]}\nimport torch\nwith torch.device('meta'):\n    made = make()\n"
    code += "assert all(each.is_meta for each in made.parameters())\n"
    code += "from torchaudio.compliance import kaldi\nassert not kaldi.EPSILON.is_meta\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
