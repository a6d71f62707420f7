"""What vision has to say to the tests that cross all domains."""

SHORT = ("data.limit=8", "data.batch_size=4")
DEFAULT = ("model.depth=2", "model.embed_dim=16")
SCENES = ("data.image_size=[8,12]", "data.side=[12,20]", "data.train=4", "data.val=2", "data.test=3")
MODELS = {
    "fusionmamba": ("model.dim=4", *SCENES),
    "panmamba": SCENES,
    "graphmamba": ("model.dim_h=8", "model.depth=2", "data.train=10", "data.val=5", "data.test=5"),
    "pointmamba": (
        "model.trans_dim=16", "model.depth=2", "model.num_group=8", "model.group_size=4", "data.points=40", "data.train=20",
        "data.val=10", "data.test=10",
    ),
    "segmenter": (
        "model.options={dims: [8, 8], depths: [1, 1]}", "model.channels=8", "data.image_size=[20,24]", "data.train=4", "data.val=2",
        "data.test=2",
    ),
    "vmrnn": ("data.image_size=[10,12]", "data.frames=3", "data.train=8", "data.val=4", "data.test=4", "model.d_state=4"),
    "unet": ("model.features=2", "data.image_size=[20,24]", "data.train=4", "data.val=2", "data.test=2"),
}  # fmt: skip
ODD = (
    ("data.image_size=[6,10]",),
    ("data.image_size=[8,8]", "model.patch_size=8"),
    ("data.channels=3", "scan=hilbert"),
)
PICTURES = ("first_batch.png", "worst_predictions.png", "scan.png")
EXPLAIN = ("explain=attribution",)


def predict(folder):
    from PIL import Image

    (folder / "photos").mkdir(exist_ok=True)
    Image.linear_gradient("L").resize((37, 21)).save(folder / "photos" / "grey.png")
    turned = Image.radial_gradient("L").convert("RGB").resize((19, 33))
    turned.save(folder / "photos" / "turned.jpg", exif=_turned(turned))
    return [("input=photos",), ("input=photos/grey.png",), ("input=photos/*.jpg", "explain=rollout")]


def _turned(image):
    exif = image.getexif()
    exif[0x0112] = 6
    return exif
