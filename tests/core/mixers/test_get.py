import pytest

from polymamba import core
from polymamba.core.errors import UserError
from polymamba.core.mixers import Attention, Mamba, Mamba2, Mamba3, get


def test_by_name():
    assert get("mamba") is core.Mamba is Mamba
    assert get("mamba2") is core.Mamba2 is Mamba2
    assert get("mamba3") is core.Mamba3 is Mamba3
    assert get("attention") is Attention
    with pytest.raises(UserError, match="mixer=mamba"):
        get("mambo")
