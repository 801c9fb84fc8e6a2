"""The napari face of UniBiomed. It imports only public names of ``unibiomed_core`` and nothing heavy."""
