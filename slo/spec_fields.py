"""What the models of slo.yaml have in common: strictness, and numbers that may be written as percentages."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$", re.ASCII)


class StrictModel(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def number(value: object) -> object:
    """A number, or a percentage as a ratio.

    Raises:
        ValueError: anything else; the message says how to write it.

    >>> number("0.1%"), number(3)
    (0.001, 3)
    """
    if isinstance(value, bool):
        raise ValueError("write a number")
    if isinstance(value, str):
        match = _PERCENT.match(value)
        if not match:
            raise ValueError("write a number, or a percentage such as 5%")
        # 0.1 % / 100 is 0.0010000000000000002 in floats; rounding keeps that noise out of limits.
        return round(float(match[1]) / 100, 12)
    return value


def is_off(value: object) -> bool:
    """Whether somebody wrote `off`, which YAML 1.1 reads as false."""
    return value is False or value == "off"
