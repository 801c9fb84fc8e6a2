"""A whole volume or picture: a plan over slices, batches, linking of masks to findings, the end of a run."""
