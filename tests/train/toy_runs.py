"""Records of every role of the published list, and a toy model with its material, for tests of stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.unibiomed_core.engine.toy import ct_slice, tokenizer, toy_config, toy_engine
from train.data import records as record_files
from train.data.records import Record, RecordSet, region_record, resize_picture
from train.training.stage import TrainingData
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

torch.set_num_threads(1)

__all__ = ["ct_slice", "material", "records_of_every_role", "toy_engine", "toy_model"]

HEIGHT, WIDTH = 96, 72


def disc(row: int, column: int, radius: int = 12) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def picture(seed: int) -> bytes:
    return resize_picture(np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), 0)


def record(number: int, dataset: str = "polyps", modality: str = "endoscopy", **more: object) -> Record:
    name = f"{dataset}/{number}"
    return Record(name, dataset, "train", name, modality, "", picture(number), (HEIGHT, WIDTH), **more)  # type: ignore[arg-type]


def records_of_every_role(folder: Path) -> RecordSet:
    """Two polyps and a normal picture; an entry with a report; a caption alone; three slices of a volume."""
    liver = region_record("liver", disc(40, 30))
    told = region_record("liver tumour", disc(50, 40), caption="One Lesion.", anatomy="liver")
    rows = [
        *(record(n, regions=(region_record("polyp", disc(30 + n, 30)),), findings_known=True) for n in range(2)),
        record(2, absent=("polyp",), findings_known=True),
        record(3, "radgenome", "ct", regions=(told,), findings_known=True, caption="One Lesion."),
        record(4, "medtrinity", "xray", caption="A clear View."),
        *(record(5 + n, "msd09-spleen", "ct", regions=(liver,), volume="v", slice=9 - n) for n in range(3)),
    ]
    record_files.save(rows, folder / "train.parquet")
    return record_files.load(folder / "train.parquet")


def toy_model(seed: int = 1) -> tuple[UniBiomed, Processor]:
    config = toy_config()
    processor = Processor(config, tokenizer())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UniBiomed(config, processor.ids)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # so that masks are not flat
                torch.nn.init.normal_(parameter, std=0.15)
    return model, processor


def material(records: RecordSet, processor: Processor) -> TrainingData:
    return TrainingData(records, processor, seed=5)
