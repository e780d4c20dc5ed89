"""The steps of the dock widget: Qt only, signals out and setters in; they know neither napari nor the session."""
