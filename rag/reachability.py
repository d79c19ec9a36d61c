"""Whether a model is worth asking: a circuit breaker per endpoint. Pure; time is an argument, seconds."""

from __future__ import annotations


class Circuit:
    """Closed: ask. Open after some failures in a row: nobody waits for it. Then one question at a time tries it.

    after_count: failures in a row that open it. open_s: how long it stays open before the next try; doubled at each try
    that fails, up to `open_max_s`.
    """

    def __init__(self, after_count: int = 2, open_s: float = 5.0, open_max_s: float = 60.0) -> None:
        self._after_count, self._open_s, self._open_max_s = after_count, open_s, open_max_s
        self._failed_count = 0
        self._wait_s = open_s
        self._until_s: float | None = None
        self._trying = False
        self.opened_count = 0

    @property
    def closed(self) -> bool:
        """Nothing is known against it."""
        return self._until_s is None

    def allows(self, now_s: float) -> bool:
        """Whether to ask now. Asking changes nothing: `started` takes the place of the one that tries."""
        return self._until_s is None or now_s >= self._until_s

    def started(self, now_s: float) -> None:
        """Somebody asks; while it is being tried the others stay away."""
        if self._until_s is not None:
            self._until_s, self._trying = now_s + self._wait_s, True

    def succeeded(self) -> None:
        """It answered."""
        self._failed_count, self._wait_s, self._until_s, self._trying = 0, self._open_s, None, False

    def failed(self, now_s: float, retry_after_s: float = 0.0) -> None:
        """It did not. retry_after_s: what it asked us to wait, 0 for nothing."""
        self._failed_count += 1
        if self._until_s is not None:
            if self._trying:  # others were under way when it opened and say nothing new
                self._trying = False
                self._wait_s = min(self._open_max_s, self._wait_s * 2)
                self._until_s = now_s + max(self._wait_s, retry_after_s)
        elif self._failed_count >= self._after_count or retry_after_s > 0:
            self.opened_count += 1
            self._until_s = now_s + max(self._wait_s, retry_after_s)
