import pytest
import triton

from polymamba.core.ops.blocks import cdiv, next_power_of_2


@pytest.mark.parametrize("number", [1, 2, 3, 31, 32, 33, 1000, 2**20 + 1])
def test_they_say_what_tritons_say(number):
    assert next_power_of_2(number) == triton.next_power_of_2(number)
    assert [cdiv(number, each) for each in (1, 2, 32)] == [triton.cdiv(number, each) for each in (1, 2, 32)]
    assert (cdiv(0, 4), next_power_of_2(0)) == (0, 1)
