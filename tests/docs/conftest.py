"""The pages run `icp` the way the tests of other people's clients do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "clients"))
