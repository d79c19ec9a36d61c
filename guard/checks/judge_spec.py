"""Settings of the optional judging model as they travel to the worker. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """base_url ends before `/chat/completions`; nothing else is ever connected to.

    input_usd, output_usd: per 1M tokens. sample_ratio: share of the answers asked about although the tiers before are
    sure. threshold: support below which an answer fails. budget_path: file of what is spent. redact: personal data is
    taken out before anything leaves. band: as of `DetectorSpec`. egress_networks: as in `limits`.
    """

    base_url: str
    model: str
    budget_path: str
    api_key: str = field(default="", repr=False)
    daily_usd: float = 1.0
    daily_calls_count: int = 1000
    input_usd: float = 0.0
    output_usd: float = 0.0
    sample_ratio: float = 0.0
    threshold: float = 0.5
    timeout_s: float = 20.0
    waiting_count: int = 8
    redact: bool = True
    band: tuple[float, float] | None = None
    selftest: bool = True
    egress_networks: tuple[str, ...] = ()
