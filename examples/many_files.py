"""A folder of pictures with one loaded model: python examples/many_files.py FOLDER MODALITY OUT."""

import sys
from pathlib import Path

from unibiomed_core import Done, Engine, UniBiomedError, read
from unibiomed_core.io import write

folder, modality, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
engine = Engine.load("mini")
for path in sorted(p for p in folder.iterdir() if p.suffix in {".png", ".jpg", ".tif"}):
    try:
        volume = read(path, modality=modality)
        done = [update for update in engine.run(volume) if isinstance(update, Done)]
        write(done[-1].report, volume, None, out / f"{path.stem}.csv")
    except UniBiomedError as error:  # what was found, what was expected, what to do; the next file goes on
        print(f"{path.name}: {error}", file=sys.stderr)
