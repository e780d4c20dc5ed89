"""The napari plugin: the only folder that imports napari, magicgui or qtpy."""
