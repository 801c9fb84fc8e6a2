"""Everything that belongs to a model and is saved with its weights: sizes, preprocessing, wording, what it learnt.

Sizes are plain dataclasses; ``library_config.py`` turns them into the configuration objects of ``transformers``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unibiomed_core.errors import WeightsError
from unibiomed_core.model.towers import TowerSizes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FORMAT_VERSION = 1

MOST_LAYERS, LARGEST_SIZE = 1000, 1 << 20
"""Of any model that is read: layers are made one by one before a weight is met, and sizes are multiplied."""

SURE = 1e-6
"""A presence score nearer to 0 or 1 than this counts as this; its logit would not be finite."""


@dataclass(frozen=True)
class VisionSizes:
    """The vision transformer of the language side (InternViT)."""

    hidden: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    image_size: int = 448
    patch_size: int = 14

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens after the 2x2 pixel shuffle."""
        return (self.image_size // self.patch_size // 2) ** 2


@dataclass(frozen=True)
class LanguageSizes:
    """The language model (Qwen2)."""

    hidden: int = 896
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    mlp: int = 4864
    vocabulary: int = 151679
    rope_theta: float = 1e6
    max_positions: int = 32768
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True)
class GroundingSizes:
    """SAM 2; the defaults are hiera-large's. ``memory`` False leaves out the parts that only follow an object through
    slices; a model without them has no propagation. Masks have ``image_size / mask_stride`` pixels a side."""

    image_size: int = 1024
    hidden: int = 256
    trunk_width: int = 144
    trunk_heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_blocks: tuple[int, ...] = (23, 33, 43)
    position_window: tuple[int, int] = (7, 7)
    windows: tuple[int, ...] = (8, 4, 16, 8)
    top_down_levels: tuple[int, ...] = (2, 3)
    decoder_mlp: int = 2048
    decoder_heads: int = 8
    iou_hidden: int = 256
    mask_stride: int = 4
    memory: bool = True
    memory_dim: int = 64
    memory_layers: int = 4
    memory_mlp: int = 2048
    memory_slots: int = 7
    memory_fuser_layers: int = 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four trunk stages, finest first."""
        return tuple(self.trunk_width * 2**i for i in range(len(self.stages)))


@dataclass(frozen=True)
class SceneSizes:
    """The first look at a picture, see ``model/scene.py``.

    Args:
        modalities: Names of ``modalities.MODALITIES`` that it tells apart, in the order of its outputs.
        parts: Names of ``vocabulary.PARTS``.
        findings: "modality/target" each: what it tells of a whole picture.
        image_size: Pixels a side.
    """

    modalities: tuple[str, ...]
    parts: tuple[str, ...]
    findings: tuple[str, ...] = ()
    image_size: int = 224


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the two towers' inputs.

    Args:
        tiling: "dynamic" cuts a picture into up to ``max_tiles`` tiles, as published; "single" resizes it to one.
        thumbnail: Append the whole picture after the tiles when there is more than one.
        grounding_norm: "exact", or "rounded" for the bfloat16 constants of the published inference code.
    """

    tiling: Literal["dynamic", "single"] = "dynamic"
    max_tiles: int = 12
    thumbnail: bool = True
    grounding_norm: Literal["exact", "rounded"] = "exact"


@dataclass(frozen=True)
class Fusion:
    """How the checks of an abnormal finding make one probability: a logistic rule, fitted on held-out patients.

    Args:
        weights: Check -> weight of the logit of its score, less the mean there; a check that was not made counts
            nothing.
        means: Check -> mean logit on the patients of the fit.
        offset: The logit where every check is at its mean.
        threshold: A finding with a lower probability is not told as one.
    """

    weights: Mapping[str, float]
    means: Mapping[str, float]
    offset: float
    threshold: float = 0.5

    def probability(self, presence: float, logits: Mapping[str, float]) -> float:
        """How likely a finding is there, 0..1.

        Args:
            presence: By its mask alone; the answer where no check has a weight.
            logits: Check -> logit of its score.
        """
        known = [code for code in self.weights if code in logits]
        if not known:
            return presence
        total = self.offset + sum(self.weights[code] * (logits[code] - self.means.get(code, 0.0)) for code in known)
        return 1.0 / (1.0 + math.exp(-min(max(total, -30.0), 30.0)))


@dataclass(frozen=True)
class Presence:
    """How the model tells that a target is there.

    Args:
        source: "object" reads SAM 2's object score (trained for it by this project); "mask" reads the mean probability
            inside the mask, for published weights, whose object score was never trained.
        threshold: A mask whose probability is below it is given as absent; 0 keeps every mask, as published.
        thresholds: The same for single targets, by name.
        scale: With ``offset`` and ``offsets``, what turns the score into a probability; 1, 0 and none leave it alone.
        offset: Added on the logit scale for every target.
        offsets: Added for single targets, by name; a target with too few cases to learn one from has none.
        fusion: How checks are joined with it; None for weights that bring no such rule.
    """

    source: Literal["object", "mask"] = "mask"
    threshold: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    offsets: Mapping[str, float] = field(default_factory=dict)
    fusion: Fusion | None = None

    def threshold_for(self, target: str) -> float:
        return self.thresholds.get(target, self.threshold)

    def probability(self, score: float, target: str) -> float:
        """How likely a target is there, 0..1, from the score of ``source``, 0..1; it never falls as the score rises.

        Platt scaling with an offset a target: sigmoid(scale * logit(score) + offset + offsets[target]) (Platt 1999).
        """
        shift = self.offset + self.offsets.get(target, 0.0)
        if self.scale == 1.0 and shift == 0.0:
            return score
        kept = min(max(score, SURE), 1.0 - SURE)
        return 1.0 / (1.0 + math.exp(-(self.scale * math.log(kept / (1.0 - kept)) + shift)))


@dataclass(frozen=True)
class UniBiomedConfig:
    """One model.

    Args:
        name: Short name, shown to people and written into reports.
        wording: Task name -> instruction, where it differs from ``tasks.TASKS``.
        answers: Task name -> wording of the known answer, where it differs from ``tasks.TASKS``.
        targets: Modality -> target names the model was trained on; empty means free text.
        default_targets: Modality -> what a report looks for when nothing is named.
        facts: Licence, training data and the like, for reports and ``unibiomed models``.
        scene: The first look at a picture; None for weights without one, which are asked instead.

    Raises:
        WeightsError: A size is negative or beyond those of any model: it would keep the machine busy, or fill it,
            before a weight is found not to fit.
    """

    name: str = "unibiomed-1b"
    vision: VisionSizes = field(default_factory=VisionSizes)
    language: LanguageSizes = field(default_factory=LanguageSizes)
    grounding: GroundingSizes = field(default_factory=GroundingSizes)
    tower: TowerSizes = field(default_factory=TowerSizes)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    presence: Presence = field(default_factory=Presence)
    wording: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    scene: SceneSizes | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in ("vision", "language", "grounding", "tower", "scene")}
        for part, sizes in parts.items():
            for name, value in vars(sizes).items() if sizes is not None else ():
                most = MOST_LAYERS if "layers" in name or name in {"stages", "repeats"} else LARGEST_SIZE
                for number in value if isinstance(value, tuple) else (value,):
                    if isinstance(number, int) and not 0 <= number <= most:
                        raise WeightsError(
                            "These weights do not fit this model",
                            f"config.json: {part}.{name} is {str(number)[:20]}",
                            f"0 to {most}",
                            "Download the folder again.",
                        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``config.json``."""
        return {"format": "unibiomed", "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UniBiomedConfig:
        """Rebuild from ``config.json``.

        Raises:
            WeightsError: It is not one of ours, of a later version, or has unknown or missing names.
        """
        values = dict(values)
        if values.pop("format", None) != "unibiomed":
            raise WeightsError("These weights do not fit this model", "config.json is not in this product's layout")
        if (version := values.pop("format_version", None)) != FORMAT_VERSION:
            raise WeightsError(
                "These weights do not fit this model",
                f"config.json has format version {version}",
                f"version {FORMAT_VERSION}",
                "Update the product, or take weights made for this version.",
            )
        values.setdefault("tower", {})  # weights made before there was a choice have a tower for each side
        parts = {
            "vision": VisionSizes,
            "language": LanguageSizes,
            "grounding": GroundingSizes,
            "tower": TowerSizes,
            "preprocessing": Preprocessing,
            "presence": Presence,
        }
        try:
            for key, part in parts.items():
                inner = {k: tuple(v) if isinstance(v, list) else v for k, v in values[key].items()}
                values[key] = part(**inner)
            if values["presence"].fusion is not None:
                values["presence"] = dataclasses.replace(values["presence"], fusion=Fusion(**values["presence"].fusion))
            if values.get("scene") is not None:
                scene: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["scene"].items()}
                values["scene"] = SceneSizes(**scene)
            for key in ("targets", "default_targets"):
                values[key] = {k: tuple(v) for k, v in values[key].items()}
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as cause:
            raise WeightsError(
                "These weights do not fit this model", f"config.json: {cause}", "the names of this version"
            ) from cause
