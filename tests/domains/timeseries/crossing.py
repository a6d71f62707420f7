"""What time series have to say to the tests that cross all domains."""

SHORT = (
    "data.steps=160", "data.lookback=24", "data.horizon=6", "data.limit=8", "data.batch_size=4",
)  # fmt: skip
DEFAULT = ("model.d_model=16", "model.n_layer=1")
ODD = (
    ("data.lookback=25", "data.horizon=1"),
    ("data.step=3", "model=mamba_forecaster", "model.joint=true", "model.mixer=mamba2"),
    ("task.loss=quantile", "task.quantile=0.9", "scan=bidirectional"),
    ("task=probabilistic", "trainer.pictures=true"),
    ("task=imputation", "task.hidden=0.5", "trainer.pictures=true"),
    ("task=anomaly", "trainer.pictures=true"),
)
PICTURES = ("first_batch.png", "forecasts.png", "errors.png")
EXPLAIN = ("explain=rollout",)


def predict(folder):
    return [(), ("horizon=9", "level=0.5"), ("horizon=3", "output=three.parquet")]
