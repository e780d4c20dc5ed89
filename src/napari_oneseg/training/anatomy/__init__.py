"""The parts of generated anatomy: what is painted into a scene, and how the scene is imaged."""
