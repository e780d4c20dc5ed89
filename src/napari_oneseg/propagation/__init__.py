"""Carrying labels from painted slices through the volume (paper 1.2 and 1.5)."""
