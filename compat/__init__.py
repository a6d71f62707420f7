"""Drop-in names: `polymamba.compat.install()` lets code written for mamba_ssm and causal_conv1d run on this core."""

from .importing import install, uninstall

__all__ = ["install", "uninstall"]
