"""All that knows napari's layers: reading them, placing masks, boxes, the view."""
