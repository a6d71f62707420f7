import pytest

from polymamba.core.errors import UserError
from polymamba.core.mixers import Attention, Mamba, get


def test_by_name():
    assert get("mamba") is Mamba
    assert get("attention") is Attention
    with pytest.raises(UserError, match="mixer=mamba"):
        get("mambo")
