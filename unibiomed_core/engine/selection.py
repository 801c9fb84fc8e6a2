"""Which linked things are kept as findings, and whether slices are linked at all, where it was asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from unibiomed_core.engine.linking import LinkedMask, SliceMask, link
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Plane, Volume


@dataclass(frozen=True, slots=True)
class Selection:
    """The defaults keep what linking keeps.

    Args:
        least_presence: Things with a lower presence are left out, 0..1.
        min_area_mm2: Pieces of a slice with a smaller area are left out, in place of the usual rule for specks.
        link_slices: Join pieces of neighbouring slices; else the pieces of each slice stay things of their own.
    """

    least_presence: float = 0.0
    min_area_mm2: float | None = None
    link_slices: bool = True

    def check(self, volume: Volume) -> None:
        """Refuse numbers that cannot be used.

        Raises:
            PromptError: A number is out of range, or an area in mm\u00b2 is asked for where pixels have no size in mm.
        """
        if not 0 <= self.least_presence <= 1:
            raise PromptError("Presence out of range", f"{self.least_presence}", "0 to 1")
        if self.min_area_mm2 is None:
            return
        if not 0 <= self.min_area_mm2 < math.inf:
            raise PromptError("Area out of range", f"{self.min_area_mm2} mm\u00b2", "0 or more square millimetres")
        if volume.spatial_unit != "mm":
            found = f"{self.min_area_mm2:g} mm\u00b2 was asked for an image without a size in millimetres"
            raise PromptError("Area without a size", found, "an image in millimetres", "Leave the smallest area out.")

    def stated(self) -> dict[str, Any]:
        """What differs from the defaults, for the settings of a report."""
        return {f.name: asdict(self)[f.name] for f in fields(self) if asdict(self)[f.name] != f.default}

    def link(
        self, masks: Iterable[SliceMask], volume: Volume, plane: Plane, *, visited: Sequence[int], every: int
    ) -> tuple[tuple[LinkedMask, ...], int]:
        """As :func:`linking.link`; things of low presence are still among them."""
        across = self.link_slices
        if self.min_area_mm2 is None:
            return link(masks, volume, plane, visited=visited, every=every, link_slices=across)
        area = self.min_area_mm2
        return link(
            masks, volume, plane, visited=visited, every=every, link_slices=across, min_area_mm2=area,
            min_area_px=math.inf,
        )  # fmt: skip

    def keep(self, linked: Sequence[LinkedMask]) -> tuple[tuple[LinkedMask, ...], list[str]]:
        """The things that are present enough, and a sentence on the others where there are any."""
        kept = tuple(thing for thing in linked if thing.presence >= self.least_presence)
        out = Counter(thing.target for thing in linked if thing.presence < self.least_presence)
        if not out:
            return kept, []
        count = out.total()
        those = "1 finding was" if count == 1 else f"{count} findings were"
        names = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in out.items())
        return kept, [f"{those} left out for a presence below {self.least_presence:g}: {names}."]
