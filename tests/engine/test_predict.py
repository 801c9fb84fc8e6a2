"""Engine.predict: what is computed once, what must not depend on batching, what is said when nothing is found."""

from __future__ import annotations

from toy import NAMES, SOFT_TISSUE, ct_slice, segment, toy_engine


def test_twelve_targets_run_each_encoder_once() -> None:
    engine = toy_engine()
    (predictions,) = engine.predict([ct_slice()], segment(), SOFT_TISSUE)
    assert len(predictions) == len(NAMES) == 12
    assert all(len(p.phrases) == 1 for p in predictions)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes) == (1, 1)
    assert (engine.counts.prefix_reads, engine.counts.mask_decodes, engine.counts.decode_steps) == (1, 1, 0)
