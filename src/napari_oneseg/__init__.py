"""Label a 3D scan by painting one slice."""
