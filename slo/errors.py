"""Errors a person can act on. Every message has a place, a value and a cure, in one line.

GuardError
├── ConfigError     guard.yaml, slo.yaml, price table, rule files (exit 2)
├── DataError       a log line, knowledge base row, baseline or manifest that cannot be used
├── SourceError     a source of readings could not be asked (says nothing about health)
├── UpstreamError   a service we call did not answer as agreed
└── RefusedError    a request was understood and is not allowed now (conflict, missing token, stage rule)
"""

from __future__ import annotations

import re

_USERINFO = re.compile(r"://[^/?#\s'\"]*@")


class GuardError(Exception):
    """Base of all expected errors; printed as one line, never with a traceback."""


def without_userinfo(text: str) -> str:
    """The text with user and password taken out of every URL in it.

    >>> without_userinfo("http://bob:s3cret@host/v1")
    'http://...@host/v1'
    """
    return _USERINFO.sub("://...@", text)


class ConfigError(GuardError):
    """A configuration file cannot be used.

    >>> str(ConfigError("slo.yaml: objectives[0].window", "1x", "write a duration such as 10m, 1h or 30d"))
    "slo.yaml: objectives[0].window: got '1x'; write a duration such as 10m, 1h or 30d"
    """

    def __init__(self, place: str, value: object, cure: str) -> None:
        self.place, self.value, self.cure = place, value, cure
        self.more: tuple[ConfigError, ...] = ()  # further errors of the same file
        shown = without_userinfo(repr(value))
        if len(shown) > 120:
            shown = shown[:117] + "..."
        # A rule about a whole section names what is wrong in it; the section itself would only bury that.
        whole = len(shown) == 120 and isinstance(value, dict | list)
        super().__init__(f"{place}: {cure}" if whole else f"{place}: got {shown}; {cure}")


class DataError(GuardError):
    """A data file or row cannot be used; the message names file, line and cure."""


class SourceError(GuardError):
    """A source of readings could not be asked. Not a reading: silence is not health."""


class UpstreamError(GuardError):
    """A service we depend on did not answer as agreed."""


class RefusedError(GuardError):
    """Understood and refused; `reason` is a short stable word for machines."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)
