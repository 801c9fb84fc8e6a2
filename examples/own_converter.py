"""Pictures and masks of one name each to training records: own_converter.py IMAGES MASKS TARGET MODALITY OUT."""

import sys
from pathlib import Path

from train.data.records import Record, RecordWriter, region_record, resize_mask, resize_picture
from train.datasets.request import split_of
from train.datasets.volumes import read_labels
from unibiomed_core import read

images, masks, target, modality, out = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5])
with RecordWriter(out / "train.parquet") as train, RecordWriter(out / "test.parquet") as test:
    for path in sorted(images.iterdir()):
        volume = read(path, modality=modality)
        here = resize_mask(read_labels(masks / path.name, volume.stored)[0] > 0, 256)
        picture = volume.voxels[0]
        rgb = picture if volume.is_rgb else picture[..., None].repeat(3, axis=-1)
        split = split_of("mine", path.stem)  # by patient: here each picture is a patient
        record = Record(
            f"mine/{path.stem}", "mine", split, path.stem, modality, "own", resize_picture(rgb, 256), rgb.shape[:2],
            regions=(region_record(target, here),) if here.any() else (), absent=() if here.any() else (target,),
        )  # fmt: skip
        (train if split == "train" else test).add(record)
