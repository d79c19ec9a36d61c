"""Lives of a release: started again as a canary, it is not judged by what it did before, however late that comes."""

from __future__ import annotations

from slo.clock import Clock
from slo.types import Exchange

FORMER_LIFE_S = 900.0
"""An answer takes ten minutes at most, and its checks wait no longer than a few more."""

LIVES, RELEASES = 20, 64


class Lives:
    """When releases began anew, and the number of the life that each is in. One instance for all who count.

    numbers: release -> 1..LIVES, absent until it begins anew; then it starts again at 1, as a label has few values.
    began_wall_s: release -> Unix seconds at which the life of that number began.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._born: dict[str, tuple[float, float]] = {}  # release -> when it began anew: wall and monotonic seconds
        self.numbers: dict[str, int] = {}
        self.began_wall_s: dict[str, float] = {}

    def begin(self, release: str, number: int | None = None) -> None:
        """A release begins anew now. number: the same on every replica (any, it is counted round); None: the next."""
        life = self.numbers.pop(release, 0) if number is None else number
        wall_s = self._clock.wall_s()
        self._born.pop(release, None)
        self.began_wall_s.pop(release, None)
        for kept in (self._born, self.numbers, self.began_wall_s):
            if len(kept) >= RELEASES:
                kept.pop(next(iter(kept)))
        self._born[release] = (wall_s, self._clock.now_s())
        self.numbers[release] = life % LIVES + 1
        self.began_wall_s[release] = wall_s

    def is_former(self, exchange: Exchange) -> bool:
        """Whether it began before its release did anew: an answer on its way then, or one whose checks come late.

        Wall time tells, and only for as long as such an answer may take: a clock that is put back costs minutes.
        """
        born = self._born.get(exchange.release)
        if born is None:
            return False
        if self._clock.now_s() - born[1] > FORMER_LIFE_S:
            del self._born[exchange.release]
            return False
        return exchange.wall_s < born[0]

    def __bool__(self) -> bool:
        """Whether any release began anew lately."""
        return bool(self._born)
