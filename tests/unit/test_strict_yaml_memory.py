"""A file refused again and again leaves nothing behind."""

from __future__ import annotations

import gc

import pytest

from slo.errors import ConfigError
from slo.spec import parse_slo

# Two errors: the library's own, and a validator of ours that raises inside it; its frames used to hold what held them.
REFUSED = "objectives:\n- {indicator: nope, window: xx}\n"


def errors_alive() -> int:
    gc.collect()
    # By type: asking `isinstance` of every object there is wakes lazy ones of libraries that other tests have loaded.
    return sum(type(thing) is ConfigError for thing in gc.get_objects())


def test_errors_of_refused_files_are_collected() -> None:
    def refuse() -> None:
        with pytest.raises(ConfigError):
            parse_slo(REFUSED, "slo.yaml")

    refuse()
    before = errors_alive()
    for _ in range(50):
        refuse()
    assert errors_alive() - before < 5
