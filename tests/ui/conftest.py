"""A served page with a writer that waits for its test; the tiny model is the command line's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ui_kit import Puppet, served

sys.path.append(str(Path(__file__).parents[1] / "cli"))


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[str, Puppet]]:
    """A page's address, and what writes there."""
    writer = Puppet()
    with served(writer) as url:
        yield url, writer
