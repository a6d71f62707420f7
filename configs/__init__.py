"""Hydra config groups: domain, model, scan, data, task, trainer, optimizer, logger, debug."""
