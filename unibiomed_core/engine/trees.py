"""Several texts about one picture in one sequence: where they begin alike, the beginning is laid out once.

Every token is a node that sees the nodes before it in its own texts and no other; its position is its depth. So each
text has exactly the states it would have alone behind the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class Tree:
    """Texts as ids, joined at equal beginnings."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self._parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, ids: Iterable[int]) -> list[int]:
        """Lay out one text; returns the node of each of its ids."""
        node = -1
        path: list[int] = []
        for token in ids:
            child = self._children.get((node, token))
            if child is None:
                child = self._children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self._parents.append(node)
                self.depths.append(len(path))
            node = child
            path.append(node)
        return path

    def sees(self) -> NDArray[np.bool_]:
        """(N, N), which node each node sees: itself and those above it."""
        count = len(self)
        seen = np.eye(count, dtype=bool)
        for node, parent in enumerate(self._parents):  # a parent always stands before its children
            if parent >= 0:
                seen[node, :node] |= seen[parent, :node]
        return seen


def attention(trees: Sequence[Tree], before: int) -> NDArray[np.bool_]:
    """(R, 1, N, before + N), what each node of each row may look at: all of what stands before, and its own line.

    Rows are padded to the widest tree; a padded node looks at what stands before and at itself, so that it has
    something to share attention among.
    """
    width = max(len(tree) for tree in trees)
    mask = np.zeros((len(trees), 1, width, before + width), bool)
    mask[..., :before] = True
    mask[:, 0, np.arange(width), before + np.arange(width)] = True
    for row, tree in zip(mask, trees, strict=True):
        row[0, : len(tree), before : before + len(tree)] = tree.sees()
    return mask
