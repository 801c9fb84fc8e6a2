"""The first look of a model, fitted: linear rules on pooled features of a frozen tower, by training patients alone.

The tower is an EfficientNet-Lite0 as ImageNet left it. Three logistic rules are fitted on its features, with an L2
penalty: modality and part of the body as one choice each, and every finding that enough patients show as a yes or no
among pictures of its modality. What a picture does not show is taken from its sure negatives.

Legend: N pictures, F features, K answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from unibiomed_core import vocabulary
from unibiomed_core.metrics.labels import auc as roc_auc
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.model.config import SceneSizes
from unibiomed_core.model.scene import SceneHead

from ..data.negatives import negatives, part_of
from ..data.records import Record, RecordSet

TOWER = Path(__file__).parents[1] / "towers" / "lite0" / "imagenet.safetensors"

PER_DATASET = 120
"""Pictures that a data set gives at most, evenly spaced."""

LEAST_PATIENTS = 8
"""Of a finding: patients that show it and patients that do not."""

PENALTY = 0.01
"""Of the squared weights, features being scaled to unit variance."""

LEAST_PICTURES = 100
"""A first look is fitted on so many at least, of two modalities and two parts of the body."""

SAY_EVERY = 1000


@dataclass(frozen=True)
class SceneFit:
    """A fitted first look, and how right it is on patients that it was not fitted on.

    Args:
        modality: Share of held-out pictures whose modality is right; None where there are none.
        part: The same for the part of the body.
        finding_auc: "modality/target" -> area under the ROC curve, where held-out patients show it and others do not.
        pictures: (fitted on, held out).
    """

    head: SceneHead
    modality: float | None
    part: float | None
    finding_auc: dict[str, float]
    pictures: tuple[int, int]

    @property
    def sentence(self) -> str:
        """For the facts of a model."""
        fitted, kept = self.pictures
        if self.modality is None or self.part is None:
            return f"first look fitted on {fitted} training pictures, not judged: no patients were held out"
        aucs = list(self.finding_auc.values())
        findings = f", findings with a mean AUC of {np.mean(aucs):.2f} over {len(aucs)}" if aucs else ""
        return (
            f"first look (ImageNet EfficientNet-Lite0, frozen, linear rules) fitted on {fitted} training pictures; on "
            f"{kept} pictures of held-out patients modality right in {self.modality:.3f}, part of the body in "
            f"{self.part:.3f}{findings}"
        )


@dataclass(frozen=True)
class _Pictures:
    """What is known of pictures.

    Args:
        features: (N, F) float32.
        modality: (N,) names.
        part: (N,) names, empty where none is sure.
        shows: (N,) findings of each.
        lacks: (N,) what each surely does not show.
        patients: (N,) names.
        held_out: (N,) bool.
    """

    features: Tensor
    modality: list[str]
    part: list[str]
    shows: list[frozenset[str]]
    lacks: list[frozenset[str]]
    patients: list[str]
    held_out: NDArray[np.bool_]


def fit_scene(records: RecordSet, held_out: NDArray[np.bool_], say: Callable[[str], None] = print) -> SceneFit | None:
    """Fit a first look on the patients that are not held out, and judge it on the others.

    Args:
        records: Training records.
        held_out: (N,) bool.

    Returns:
        None where there is too little to tell apart: few pictures, or those of one modality or part of the body.
    """
    own = records.groups[~held_out]
    if len(own) < LEAST_PICTURES or len({records.group_names[n][1] for n in np.unique(own)} & set(MODALITIES)) < 2:
        return None
    blank = SceneHead(SceneSizes(("ct",), ("chest",), ("ct/lesion",)))
    blank.tower.load_state_dict({name: value.float() for name, value in load_file(TOWER).items()})
    blank.eval()
    seen = _look(blank, records, held_out, say)
    fitting = ~seen.held_out
    if len({part for part, mine in zip(seen.part, fitting, strict=True) if part and mine}) < 2:
        return None
    mean, std = seen.features[fitting].mean(0), seen.features[fitting].std(0) + 1e-3
    scaled = (seen.features - mean) / std

    modalities = tuple(m for m in MODALITIES if m in seen.modality)
    parts = tuple(p for p in vocabulary.PARTS if p in seen.part)
    findings = _findings(seen, fitting)
    head = SceneHead(SceneSizes(modalities, parts, tuple(findings)))
    head.tower.load_state_dict(blank.tower.state_dict())

    right: list[float | None] = []
    for rule, names, truth in ((head.modality, modalities, seen.modality), (head.part, parts, seen.part)):
        labels = np.array([names.index(name) if name in names else -1 for name in truth])
        fitted = _fit_choice(scaled[fitting & (labels >= 0)], torch.tensor(labels[fitting & (labels >= 0)]), len(names))
        _unscaled(fitted, mean, std, rule)
        judged = ~fitting & (labels >= 0)
        found = rule(seen.features[judged]).argmax(1).numpy() == labels[judged]
        right.append(float(found.mean()) if judged.any() else None)

    aucs: dict[str, float] = {}
    rules = nn.Linear(scaled.shape[1], len(findings))
    for number, (name, (there, not_there)) in enumerate(findings.items()):
        known = there | not_there
        rule = _fit_yes(scaled[fitting & known], torch.tensor(there[fitting & known]))
        with torch.no_grad():
            rules.weight[number], rules.bias[number] = rule.weight[0], rule.bias[0]
        judged = ~fitting & known
        if there[judged].any() and not_there[judged].any():
            with torch.no_grad():
                scores = rule(scaled[judged])[:, 0].numpy()
            aucs[name] = roc_auc(scores.tolist(), there[judged].tolist())
    _unscaled(rules, mean, std, head.finding)
    return SceneFit(head.eval(), right[0], right[1], aucs, (int(fitting.sum()), int((~fitting).sum())))


def _look(head: SceneHead, records: RecordSet, held_out: NDArray[np.bool_], say: Callable[[str], None]) -> _Pictures:
    """Features and truth of some pictures of every data set."""
    features: list[Tensor] = []
    kept: list[Record] = []
    chosen: list[bool] = []
    for number in range(len(records.group_names)):
        for wanted in (False, True):
            own = np.nonzero((records.groups == number) & (held_out == wanted))[0]
            for index in own[:: max(1, len(own) // PER_DATASET)][:PER_DATASET]:
                record = records[int(index)]
                if record.modality not in MODALITIES:
                    continue
                rgb = torch.from_numpy(record.pixels().copy()).permute(2, 0, 1)[None]
                with torch.inference_mode():
                    features.append(head.features(rgb)[0])
                kept.append(record)
                chosen.append(wanted)
                if len(kept) % SAY_EVERY == 0:
                    say(f"first look: {len(kept)} pictures")
    return _Pictures(
        torch.stack(features).clone(),
        [r.modality for r in kept],
        [part_of(r) for r in kept],
        [frozenset(region.target for region in r.regions) for r in kept],
        [negatives(r).all() for r in kept],
        [f"{r.dataset}/{r.group}" for r in kept],
        np.array(chosen, bool),
    )


def _findings(seen: _Pictures, fitting: NDArray[np.bool_]) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """ "modality/target" -> ((N,) there, (N,) surely not there), where enough patients of the fit have either."""
    found = {}
    named: dict[str, set[str]] = defaultdict(set)
    for modality, shows in zip(seen.modality, seen.shows, strict=True):
        named[modality] |= shows
    patients = np.array(seen.patients)
    for modality in (m for m in MODALITIES if m in named):
        own = np.array([m == modality for m in seen.modality])
        for target in sorted(named[modality]):
            if vocabulary.kind_of(target, modality) != "finding":
                continue
            there = own & np.array([target in shows for shows in seen.shows])
            lacking = own & np.array([target in lacks for lacks in seen.lacks])
            if min(len(set(patients[fitting & some])) for some in (there, lacking)) >= LEAST_PATIENTS:
                found[f"{modality}/{target}"] = (there, lacking)
    return found


def _fit_choice(features: Tensor, labels: Tensor, count: int) -> nn.Linear:
    """One of ``count`` answers; rare ones weigh more, by the root of their rarity."""
    weight = (1 / labels.bincount(minlength=count).clamp(min=1).float()).sqrt()
    rule = nn.Linear(features.shape[1], count)
    _minimise(rule, lambda: nn.functional.cross_entropy(rule(features), labels, weight=weight))
    return rule


def _fit_yes(features: Tensor, labels: Tensor) -> nn.Linear:
    """Yes or no; both weigh alike, so that one half is where neither is likelier."""
    rule = nn.Linear(features.shape[1], 1)
    weight = torch.where(labels, 0.5 / labels.float().mean(), 0.5 / (1 - labels.float().mean()))
    loss = nn.functional.binary_cross_entropy_with_logits
    _minimise(rule, lambda: loss(rule(features)[:, 0], labels.float(), weight=weight))
    return rule


def _minimise(rule: nn.Linear, loss: Callable[[], Tensor]) -> None:
    """To the end, from zero: the problem is convex, so the same numbers come out everywhere."""
    nn.init.zeros_(rule.weight)
    nn.init.zeros_(rule.bias)
    optimiser = torch.optim.LBFGS(rule.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = loss() + PENALTY * rule.weight.square().sum()
        total.backward()
        return total

    optimiser.step(closure)


def _unscaled(rule: nn.Linear, mean: Tensor, std: Tensor, into: nn.Linear) -> None:
    """A rule on scaled features as the same rule on the features themselves."""
    with torch.no_grad():
        into.weight.copy_(rule.weight / std)
        into.bias.copy_(rule.bias - into.weight @ mean)
