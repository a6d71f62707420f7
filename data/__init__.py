"""A module per domain of LightningDataModules, each with a default that needs no download."""
