import json

import numpy as np
import pytest


@pytest.fixture
def volumes(tmp_path):
    """Writes a folder of NIfTI pairs: volumes(count=6) -> its path; `write(path, values, affine)` writes one file."""
    nibabel = pytest.importorskip("nibabel")

    class Writer:
        root = tmp_path / "set"

        def write(self, path, values, affine=None):
            path.parent.mkdir(parents=True, exist_ok=True)
            affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
            nibabel.save(nibabel.Nifti1Image(values, affine), path)

        def __call__(self, count=6, sizes=(12, 10, 8), names=("imagesTr", "labelsTr")):
            for number in range(count):
                rng = np.random.default_rng(number)
                labels = np.zeros(sizes, np.uint8)
                labels[2:6, 3:7, 2:5], labels[7:9, 3:7, 2:5] = 1, 3
                image = (labels * 100 + rng.normal(0, 10, sizes)).astype(np.float32)
                self.write(self.root / names[0] / f"case{number}_0000.nii.gz", image)
                self.write(self.root / names[1] / f"case{number}.nii.gz", labels)
            said = {"labels": {"background": 0, "front": 1, "back": 3}}
            (self.root / "dataset.json").write_text(json.dumps(said))
            return self.root

    return Writer()
