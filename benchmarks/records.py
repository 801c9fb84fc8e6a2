"""python benchmarks/records.py OUT [SIZE ...]: start-up and memory of the loader at 10^4, 10^5 and 10^6 records.

The records are drawn, small pictures with one region each. Every size is measured in a process of its own: seconds
from opening the file to the first step's samples, and the process's own memory after 200 steps; pages of the mapped
file, which the system takes back when it needs them, are told apart. Turning Parquet into the mapped file happens once
and is reported beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from train.data import records as record_files
from train.data.records import Record, arrow_schema, region_record, resize_picture
from train.data.sampler import Sampler
from train.data.targets import trained_targets

SIZES = (10_000, 100_000, 1_000_000)
BLOCK = 10_000
STEPS, BATCH = 200, 8
DATA_SETS = (("busi-breast-us", "ultrasound", "breast lesion"), ("kvasir-seg", "endoscopy", "polyp"))


def write(path: Path, count: int) -> None:
    """``count`` drawn records; blocks repeat pictures under new names, since only their number matters here."""
    from dataclasses import asdict

    import pyarrow as pa
    import pyarrow.parquet as parquet

    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[8:20, 10:24] = True
    rows = []
    for number in range(BLOCK):
        dataset, modality, target = DATA_SETS[number % 2]
        picture = resize_picture(rng.integers(0, 255, (32, 32, 3), np.uint8), 0)
        regions = (region_record(target, mask),) if number % 3 else ()
        absent = () if regions else (target,)
        one = Record("", dataset, "train", "", modality, "none", picture, (32, 32), regions=regions, absent=absent)
        rows.append(asdict(one))
    block = pa.Table.from_pylist(rows, schema=arrow_schema())
    with parquet.ParquetWriter(path, arrow_schema()) as file:
        for start in range(0, count, BLOCK):
            names = pa.array([f"{start + n}" for n in range(BLOCK)])
            for column in ("id", "group"):
                block = block.set_column(block.schema.get_field_index(column), column, names)
            file.write_table(block.slice(0, min(BLOCK, count - start)), row_group_size=1000)


def measure(path: Path) -> dict[str, float]:
    """Start-up in seconds and memory in MiB of one process."""
    began = time.monotonic()
    records = record_files.load(path)
    trained_targets(records)
    held_out = records.held_out(0.04)
    usable = (records.lengths("regions") > 0) | (records.lengths("absent") > 0)
    sampler = Sampler(records, 0, usable & ~held_out)
    list(sampler.samples(0, BATCH))
    seconds = time.monotonic() - began
    began = time.monotonic()
    for step in range(1, STEPS):
        for record, _ in sampler.samples(step, BATCH):
            record.pixels()
    rate = (STEPS - 1) * BATCH / (time.monotonic() - began)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(status[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile"))
    return {"start_up_s": seconds, "records_per_s": rate, "own_memory_mib": own, "mapped_mib": mapped}


def main() -> None:
    """See the top of the file."""
    if len(sys.argv) == 3 and Path(sys.argv[2]).is_file():
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    found = []
    for size in [int(s) for s in sys.argv[2:]] or SIZES:
        path = out / f"{size}" / "train.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write(path, size)
        times = []
        for _ in range(2):  # the first opening makes the mapped file
            done = subprocess.run(
                [sys.executable, __file__, str(out), str(path)], capture_output=True, text=True, check=True
            )
            times.append(json.loads(done.stdout))
        row = {"records": size, "first_opening_s": times[0]["start_up_s"], **times[1]}
        found.append(row)
        print("  ".join(f"{name} {value:,.1f}" for name, value in row.items()), flush=True)
    (out / "records.json").write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
