"""From window to window: when a drift is worth a person's attention. Pure.

A signal is passed by 5 % of ordinary windows and is no news by itself. An alarm is one window past what 0.01 % of
ordinary windows pass, or two in a row past what 1 % pass (windows that share no question): at 70 windows a week about
one false alarm in 70 weeks.
"""

from __future__ import annotations


class Alarm:
    """One component of one release. limits: of the effect, for a signal, for two in a row, for an alarm at once.

    >>> alarm = Alarm((2.0, 3.0, 4.0))
    >>> [alarm.take(effect) for effect in (1.0, 2.5, 3.5, 1.0, 3.5, 3.5, 1.0, 4.5)]
    ['steady', 'signal', 'signal', 'steady', 'signal', 'alarm', 'steady', 'alarm']
    """

    def __init__(self, limits: tuple[float, float, float]) -> None:
        self.limits = limits
        self._before = False

    def take(self, effect: float) -> str:
        """Take the next window: steady, signal or alarm."""
        signal_limit, twice_limit, once_limit = self.limits
        strong = effect > twice_limit
        alarm = effect > once_limit or (strong and self._before)
        self._before = strong
        return "alarm" if alarm else "signal" if effect > signal_limit else "steady"
