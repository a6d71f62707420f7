"""Language: models of text, generation from them, and their published checkpoints."""
