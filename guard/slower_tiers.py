"""From guard.yaml to what the check worker is told of the slower grounding tiers."""

from __future__ import annotations

from guard.checks.detector_spec import DetectorSpec
from guard.checks.judge_spec import JudgeSpec
from guard.settings import Settings
from slo.errors import ConfigError
from slo.pricing import PriceTable

BUDGET_FILE = "judge_budget.json"
MILLION = 1_000_000


def detector_spec(settings: Settings) -> DetectorSpec | None:
    """Of `checks.detector`; a directory is read relative to guard.yaml."""
    asked = settings.file.checks.detector
    if asked is None:
        return None
    beside = settings.base_dir / asked.model
    return DetectorSpec(
        model=str(beside) if beside.is_dir() else asked.model,
        kind=asked.kind,
        device=asked.device,
        threshold=asked.threshold,
        timeout_s=asked.timeout,
        load_timeout_s=asked.load_timeout,
        window_tokens=asked.window,
        overlap_tokens=asked.overlap,
        batch_count=asked.batch,
        thread_count=asked.threads,
        waiting_count=asked.waiting,
        labels=tuple(asked.labels.items()),
        golden=str(settings.resolve(asked.golden)) if asked.golden else "",
        band=asked.band,
        ask_all=asked.ask_all,
        allow_download=asked.allow_download,
    )


def judge_spec(settings: Settings, prices: PriceTable) -> JudgeSpec | None:
    """Of `checks.judge`.

    Raises:
        ConfigError: nobody knows what the model costs, so no budget could be kept.
    """
    asked = settings.file.checks.judge
    if asked is None:
        return None
    if asked.price is not None:
        input_usd, output_usd = asked.price.input, asked.price.output
    else:
        known = prices.cost_usd(asked.model, MILLION, 0), prices.cost_usd(asked.model, 0, MILLION)
        if known[0] is None or known[1] is None:
            cure = "write checks.judge.price: {input: USD, output: USD} per 1M tokens, or add it to the price table"
            raise ConfigError(f"{settings.path.name}: checks.judge.model", asked.model, f"it has no price; {cure}")
        input_usd, output_usd = known[0], known[1]
    return JudgeSpec(
        base_url=asked.url,
        model=asked.model,
        budget_path=str(settings.state_dir / BUDGET_FILE),
        api_key=settings.judge_key or "",
        daily_usd=asked.daily_usd,
        daily_calls_count=asked.daily_calls,
        input_usd=input_usd,
        output_usd=output_usd,
        sample_ratio=asked.sample,
        threshold=asked.threshold,
        timeout_s=asked.timeout,
        redact=asked.redact,
        band=asked.band,
        selftest=asked.selftest,
        egress_networks=settings.file.limits.egress_networks,
    )
