import golden_records
import pytest
from hypothesis import HealthCheck, Phase, settings

# Examples are drawn from the test's own text: a failure repeats. `--hypothesis-profile=long` tries many more.
settings.register_profile(
    "short", max_examples=25, stateful_step_count=8, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
settings.register_profile("long", settings.get_profile("short"), max_examples=5000, derandomize=False, print_blob=True)
settings.load_profile("short")


@pytest.fixture(scope="session")
def golden():
    """The module that fills a model from its tensors' names and compares its answers with the original code's records."""
    return golden_records
