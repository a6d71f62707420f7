"""What a run leaves to go on from, and what another one begins with."""
