"""Regular expressions from a configuration file, restricted so that they cannot run long. Pure.

Python's `re` has no time limit, so the grammar carries it: no unbounded repeats, no repeat inside a repeat, no back
references, no look-around; the bounds of all repeats multiply to at most `MAX_WORK` steps per character.
"""

from __future__ import annotations

import re
import re._constants as c  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

MAX_WORK = 2_000
MAX_CHARS = 300
TEXT_CHARS = 20_000
"""Characters of an answer that patterns are run over."""

_PLAIN = frozenset((c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN, c.AT, c.RANGE, c.CATEGORY, c.NEGATE))


def compile_safe(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of the safe subset, ignoring case.

    Raises:
        ValueError: not a regular expression, or outside the subset; the message says what and what to write instead.

    >>> compile_safe(r"INV-\\d{4,8}").search("see inv-20391") is not None
    True
    """
    if len(pattern) > MAX_CHARS:
        raise ValueError(f"pattern has {len(pattern)} characters, at most {MAX_CHARS}")
    try:
        tree = parser.parse(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression ({error})") from error
    work = _work(tree, repeated=False)
    if work > MAX_WORK:
        raise ValueError(f"its repeats multiply to {work} steps, at most {MAX_WORK}; use smaller bounds")
    return re.compile(pattern, re.IGNORECASE)


def _work(tree: Any, *, repeated: bool) -> int:
    """Upper bound of ways to match at one position."""
    total = 1
    for op, argument in tree:
        if op in _PLAIN:
            continue
        if op in (c.MAX_REPEAT, c.MIN_REPEAT):
            low, high, body = argument
            if high == c.MAXREPEAT:
                raise ValueError("* + and {n,} run without limit; write a bound such as {0,40}")
            if repeated:
                raise ValueError("a repeat inside a repeat; write it out")
            total *= (high - low + 1) * max(1, _work(body, repeated=True)) ** max(1, min(high, 12))
        elif op is c.SUBPATTERN:
            total *= _work(argument[-1], repeated=repeated)
        elif op is c.BRANCH:
            total *= sum(_work(branch, repeated=repeated) for branch in argument[1])
        else:
            raise ValueError("only literals, character classes, groups, alternatives and bounded repeats are allowed")
        if total > 10**9:
            return total
    return total
