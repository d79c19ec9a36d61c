"""What several files of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.release_kit import World


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    """Put every world of a test in here: it is closed at the end, whatever happens."""
    made: list[World] = []
    yield made
    for world in made:
        world.close()
