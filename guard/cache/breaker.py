"""A circuit breaker: after some failures in a row nobody waits for the broken thing any more. Pure."""

from __future__ import annotations


class Breaker:
    """Closed: ask. Open: do not ask; a probe that nobody waits for goes out now and then and closes it again."""

    def __init__(self, after_count: int = 5) -> None:
        self._after_count = after_count
        self.failed_count = 0
        self.open = False
        self.opened_count = 0

    def failed(self) -> None:
        """One more in a row."""
        self.failed_count += 1
        if self.failed_count >= self._after_count:
            self.trip()

    def succeeded(self) -> None:
        """It works; an open breaker is closed by `close` alone, an answer that comes late does not."""
        self.failed_count = 0

    def trip(self) -> None:
        """Open it now."""
        if not self.open:
            self.open = True
            self.opened_count += 1

    def close(self) -> None:
        """The probe came back well."""
        self.open = False
        self.failed_count = 0
