"""The joint model: InternVL, the ``[SEG]`` bridge and SAM 2."""
