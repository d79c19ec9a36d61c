"""What the controller may ask about versions, all by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guard.release.incident import Exemplar
from slo.history import Point
from slo.types import Slo, Version


@dataclass(frozen=True, slots=True)
class Facts:
    """What the controller may ask about versions, all by name.

    versions: every version this process can serve. details: more to compare than the release tuple has (a knowledge
    base profile, say). exemplars: bad answers of a release to look at. event_count: exchanges of a release so far.
    history: an objective of a release over the last hours.
    """

    versions: Mapping[str, Version]
    details: Callable[[str], Mapping[str, str]] = lambda _name: {}
    exemplars: Callable[[str], tuple[Exemplar, ...]] = lambda _name: ()
    event_count: Callable[[str], int] = lambda _name: 0
    history: Callable[[Slo, str], tuple[Point, ...]] = lambda _slo, _name: ()

    def version(self, name: str) -> Version:
        """The version called `name`; of one that is not configured any more only the name is known."""
        return self.versions.get(name) or Version(name)
