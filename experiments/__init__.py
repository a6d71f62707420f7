"""One YAML a reproduced result: the recipe, the published number, and what was measured here."""
