"""A package per domain: its models (a file per paper) and its task (loss, metrics, pictures)."""
