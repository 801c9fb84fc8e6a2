"""A grounded report of one picture: python examples/report_of_a_picture.py OUT."""

import sys
from pathlib import Path

from unibiomed_core import Done, Engine, read
from unibiomed_core.io import write
from unibiomed_core.samples import sample_path

volume = read(sample_path("ultrasound"), modality="ultrasound")
for update in Engine.load("mini").run(volume):
    if isinstance(update, Done):
        print(update.report.narrative)
        write(update.report, volume, None, Path(sys.argv[1]) / "report.json", overwrite=True)
