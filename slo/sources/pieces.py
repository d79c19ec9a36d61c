"""A dump of windows that was taken in small pieces, joined to one again. Pure.

A head {v, wall_s, ...}, pieces of windows (`slo.sources.books`) and of a trial (`slo.sources.trial`), and a tail with
their number, without which the dump is torn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slo.sources.books import Routes
from slo.windows import join_parts

DUMP_VERSION = 1


def joined(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the dump that these pieces make; a whole dump is one piece, too.

    Raises:
        ValueError: pieces are missing. KeyError, TypeError, AttributeError, IndexError: not pieces.
    """
    several = iter(pieces)
    head = next(several, None)
    if head is None:
        raise ValueError("no dump of windows: empty")
    if "releases" in head:
        return dict(head)
    dump: dict[str, Any] = {"v": head["v"], "wall_s": head["wall_s"], "releases": {}}
    dump |= {name: head.get(name, {}) for name in ("lives", "began")}
    if dump["v"] != DUMP_VERSION:
        return dump  # whoever loads it says so; its pieces may be of any form
    parts: dict[tuple[str, Routes, str, str], list[Mapping[str, Any]]] = {}
    piece_count = 0
    for piece in several:
        if "piece_count" in piece:
            break
        if "trial" in piece:
            dump.setdefault("trial", []).append(piece["trial"])
        else:
            where = (piece["release"], tuple(piece["routes"]), piece["part"], piece["name"])
            parts.setdefault(where, []).append(piece)
        piece_count += 1
    else:
        raise ValueError(f"torn dump of windows: ends after {piece_count} pieces")
    if piece_count != piece["piece_count"]:
        raise ValueError(f"torn dump of windows: {piece_count} pieces of {piece['piece_count']}")
    books: dict[tuple[str, Routes], dict[str, Any]] = {}
    for (release, routes, part, name), found in parts.items():
        book = books.get((release, routes))
        if book is None:
            book = books[release, routes] = {"routes": list(routes), "windows": {}, "unjudged": {}, "over": {}}
            dump["releases"].setdefault(release, []).append(book)
        windows = join_parts(each["windows"] for each in found)
        book[part][name] = [found[0]["limit"], windows] if part == "over" else windows
    return dump
