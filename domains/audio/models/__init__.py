"""Models of sound, a file per paper. Those that separate are called as model(mixture): (batch, time) to (batch, sources, time)."""
