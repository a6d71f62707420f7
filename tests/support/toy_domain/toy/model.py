"""A network of one hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from polymamba.core.errors import UserError
from polymamba.core.ranges import Size


class Net(nn.Module):
    """(batch, features) -> (batch, classes), with dropout so that the random state matters."""

    def __init__(self, features: int, classes: int, hidden: Size = 8, dropout: float = 0.2, explode: bool = False):
        super().__init__()
        hide = nn.Linear(features, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Dropout(dropout)
        self.layers = nn.Sequential(*hide, nn.Linear(hidden, classes))
        self.explode = explode

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y * float("nan") if self.explode and self.training else y


def build(describe: dict, size: str | None = None, patch_size: int = 2, **options) -> Net:
    """A Net for the data; a patch size that does not divide the number of features is refused, as real models do."""
    if describe["features"] % patch_size:
        raise UserError(
            "the patch size does not divide the features", given=f"model.patch_size={patch_size}", allowed="1, 2, 4",
            do="model.patch_size=2",
        )  # fmt: skip
    return Net(describe["features"], describe["num_classes"], **options)
