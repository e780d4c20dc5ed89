"""Learning the correspondence network."""
