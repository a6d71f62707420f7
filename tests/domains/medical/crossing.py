"""What medical images have to say to the tests that cross all domains."""

SHORT = (
    "data.side=16", "data.train=4", "data.val=1", "data.test=2", "data.balls=2", "data.batch_size=2",
)  # fmt: skip
IMAGES = ("data.axes=2", "data.side=32")
CLASSES = ("data=synthetic_classes", "task=classification")
MODELS = dict.fromkeys(("ultralight_vm_unet", "vm_unet", "mamba_unet", "swin_umamba"), IMAGES)
MODELS |= {"medmamba": CLASSES, "nnmamba_classifier": (*CLASSES, "data.axes=3")}
DEFAULT = ("model.base_features=4", "model.max_stages=3", "data.patches=1")
ODD = (("data.side=[17,20,13]", "data.patch_size=[12,16,9]"), (*IMAGES, "scan=cross"))
PICTURES = ("first_batch.png", "worst_predictions.png", "classes.png", "scan.png", "data/plan.json")
EXPLAIN = ("input=scan.nii.gz", "output=explained", "explain=true", "pictures=1")


def predict(folder):
    import nibabel
    import numpy as np

    values = np.random.default_rng(0).normal(size=(18, 14, 11)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1.0, 2.0, 1.0])), folder / "scan.nii.gz")
    return [("input=scan.nii.gz", "output=said", "pictures=1")]
