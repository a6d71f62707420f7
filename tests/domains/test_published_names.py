"""Which domain a name on the hub belongs to."""

import pytest

from polymamba.engine.command_line.groups import Groups
from polymamba.engine.conventions import find_published


@pytest.mark.parametrize(
    ("where", "domain"),
    [("hustvl/Vim-tiny-midclstok", "vision"), ("state-spaces/mamba-130m", "nlp"), ("some/one", "nlp")],
)
def test_a_name_is_the_domains_that_knows_it(where, domain):
    """Any name may be a language model's; one that another domain knows is not."""
    assert find_published(where, None, Groups())[0].domain == domain
