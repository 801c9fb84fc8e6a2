"""Rows that need no clock: FLOPs at the published size, image encodes, decode steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.bars import Row
from benchmarks.flops import predict_flops
from benchmarks.subject import TARGETS, WINDOW, Subject, embedded_processor, picture
from unibiomed_core.engine.engine import Engine
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.presets import one_billion
from unibiomed_core.model.processor import Processor
from unibiomed_core.tasks import END, PHRASE_CLOSE, PHRASE_OPEN, SEG
from unibiomed_core.types import Prompt, Region

TERA = 1e12
SEEN = picture(0, 512)
SLICES, AIR = 300, 60
REPORT_MASKS, REPORT_TOKENS = 6, 180
MOST_FLOPS_MORE_TARGETS = 1.06


def published_size(sizes: UniBiomedConfig | None = None) -> list[Row]:
    """R0: a 512 px slice, a report, and a volume, each slice of which costs what its targets cost.

    The words are cut by the embedded model's tokenizer; the published one has a few tokens more for the same words. The
    volume is counted without the three key slices that are described in words.
    """
    processor = embedded_processor(sizes or one_billion())
    answer = report_ids(processor, REPORT_MASKS, REPORT_TOKENS)
    cases = [
        ("512 px slice, 1 target", slice_flops(processor, 1), 1, 2.9),
        ("report, 6 masks, 180 tokens", predict_flops(processor, SEEN, [Prompt("report")], WINDOW, answer), 1, 3.2),
        ("300 slices (60 air) x 12 targets", slice_flops(processor, TARGETS), SLICES - AIR, 700.0),
    ]
    return [
        Row("R0", f"TFLOP: {name}", "count", times * flops.total() / TERA, bar, parts=split(flops, times))
        for name, flops, times, bar in cases
    ]


def more_targets(sizes: UniBiomedConfig | None = None) -> list[Row]:
    """R2 in FLOPs: 12 targets on a slice against one."""
    processor = embedded_processor(sizes or one_billion())
    one, twelve = (slice_flops(processor, count).total() for count in (1, TARGETS))
    return [Row("R2", "FLOPs: 12 targets / 1", "count", twelve / one, MOST_FLOPS_MORE_TARGETS)]


def counts(subject: Subject) -> list[Row]:
    """R1 and R4: how often the encoder runs for 12 targets, and what known wordings cost in decode steps."""
    engine = subject.engine
    engine.free()
    before = engine.counts.grounding_encodes
    engine.predict([picture(1)], subject.prompts, WINDOW)
    encodes = engine.counts.grounding_encodes - before
    steps = {
        "segment a named target": decode_steps(engine, subject.prompts[:1]),
        "name a region": decode_steps(engine, [Prompt("roi_class", region=Region(40, 40, 120, 130, index=1))]),
    }
    return [
        Row("R1", "image encodes of a slice, 12 targets", "count", encodes, 1),
        Row("R4", "decode steps, segmentation and region class", "count", sum(steps.values()), 0, parts=steps),
    ]


def decode_steps(engine: Engine, prompts: Sequence[Prompt]) -> int:
    before = engine.counts.decode_steps
    engine.predict([picture(1)], prompts, WINDOW)
    return engine.counts.decode_steps - before


def slice_flops(processor: Processor, targets: int) -> Counter[str]:
    """FLOPs of some targets on one slice."""
    names = processor.config.targets["ct"][:targets]
    return predict_flops(processor, SEEN, [Prompt("segment", name) for name in names], WINDOW)


def report_ids(processor: Processor, masks: int, tokens: int) -> list[int]:
    """An answer of exactly so many masks and tokens, end mark included."""
    phrase = f"{PHRASE_OPEN} liver. one liver, centre, medium. {PHRASE_CLOSE} {SEG} "
    body, end = processor.encode(phrase * masks), processor.encode(END)
    filler = processor.encode(" liver")
    missing = tokens - len(body) - len(end)
    return [*(filler * missing)[: max(0, missing)], *body, *end]


def split(flops: Counter[str], times: int) -> Mapping[str, float]:
    """TFLOP by part, largest first."""
    return {part: times * count / TERA for part, count in flops.most_common()}
