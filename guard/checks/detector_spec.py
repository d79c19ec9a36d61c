"""Settings of the optional detector model as they travel to its process. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("auto", "nli", "tokens")


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """model: path of a directory, or a name in the local cache of the hub. kind: of KINDS.

    threshold: probability of being unsupported from which a claim fails. window_tokens, overlap_tokens: of the context,
    0 for what the model reads at once. labels: (label of the model, role) pairs. golden: file of golden pairs, "" for
    the shipped ones. band: probabilities of the tiers before, between which the model decides; None for those
    that the calibration of the language found.
    ask_all: also about answers of which the tiers before are sure; then `detector` is a second series of its own.
    """

    model: str
    kind: str = "auto"
    device: str = "cpu"
    threshold: float = 0.5
    timeout_s: float = 10.0
    load_timeout_s: float = 120.0
    window_tokens: int = 0
    overlap_tokens: int = 64
    batch_count: int = 8
    thread_count: int = 1
    waiting_count: int = 4
    labels: tuple[tuple[str, str], ...] = ()
    golden: str = ""
    band: tuple[float, float] | None = None
    ask_all: bool = False
    allow_download: bool = False
    command: tuple[str, ...] = field(default=(), repr=False)
    """argv of the process without the socket number; tests put their own here."""
