"""What all pictures share. matplotlib is part of the `analysis` extra and imported only when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slo.errors import DataError, RefusedError

GOOD, WARN, LIMIT, MUTED, INCIDENT = "#2563a8", "#c2410c", "#b91c1c", "#6b7280", "#f59e0b"
"""Colours that stay apart for the colour-blind, too: blue, rust, red, grey, amber."""


def figure_of(width_in: float, height_in: float) -> Any:
    """An empty figure that no screen is needed for.

    Raises:
        RefusedError: matplotlib is not installed ("missing_extra").
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RefusedError(
            "missing_extra", "no picture: matplotlib is not installed; pip install 'sft-guard[analysis]'"
        ) from error
    # A bare Figure draws with Agg and knows no global state, so it may be used from any thread.
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write a PNG, making its directory.

    Raises:
        DataError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
