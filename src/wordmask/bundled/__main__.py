"""`python -m wordmask.bundled NAME=CHECKPOINT …`: put trained models into the package."""

import sys
from pathlib import Path

from wordmask import bundled, weights

if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    size = bundled.pack({name: weights.read(Path(path)) for name, path in named.items()})
    print(f"{', '.join(named)}: {size / 2**20:.1f} MiB in {bundled.FOLDER}")
