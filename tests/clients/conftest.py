"""The raw client of the replica's tests makes the canisters that other people's clients call."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "replica"))
