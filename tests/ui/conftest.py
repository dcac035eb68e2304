"""The page's tests use the tiny model of the command line's."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cli"))
