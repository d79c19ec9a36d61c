"""From guard.yaml to what the check worker is told of the slower grounding tiers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from guard.checks import judge_budget
from guard.checks.calibration import load_calibration
from guard.checks.detector_spec import DetectorSpec
from guard.checks.judge_spec import JudgeSpec
from guard.settings import Settings
from slo.clock import SystemClock
from slo.errors import ConfigError, GuardError
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
    )


Found = tuple[str, str, str, str]
"""state (ok | warn | fault), subject, text, cure: a line of `sft-guard doctor`."""


def examine_tiers(settings: Settings) -> Iterator[Found]:
    """Load what the slower tiers are made of, as their processes would; the detector may take a while."""
    checks = settings.file.checks
    if not checks.enabled:
        return
    if checks.calibration is not None:
        try:
            made_on = load_calibration(settings.resolve(checks.calibration)).made_on
            yield "ok", "calibration", f"{checks.calibration}, made on {made_on}", ""
        except GuardError as error:
            yield "fault", "calibration", str(error), "until then no answer is checked"
    spec = detector_spec(settings)
    if spec is None:
        yield "ok", "detector", "none; `checks.detector` adds a model for claims in doubt (docs/detectors.md)", ""
    else:
        yield _detector(spec)
    if checks.judge is not None:
        yield _judge(settings)


def _detector(spec: DetectorSpec) -> Found:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return "fault", "detector", f"{spec.model} needs {', '.join(missing)}", "pip install 'sft-guard[embeddings]'"
    from guard.checks.detector_link import Begin, Loaded
    from guard.checks.detector_process import DetectorProcess

    said = DetectorProcess(None).answer(Begin(spec))
    assert isinstance(said, Loaded)
    if said.problem:
        return "fault", "detector", said.problem, "until then its findings are `unavailable`"
    if said.blind:
        why = "; ".join(said.blind.values())
        return "warn", "detector", f"{said.name}: {why}", "answers in these languages have no finding of this detector"
    return "ok", "detector", f"{said.name} tells the golden pairs apart", ""


def _judge(settings: Settings) -> Found:
    today = SystemClock().wall_s()
    try:
        table = PriceTable.load(settings.resolve(settings.file.prices) if settings.file.prices else None)
        spec = judge_spec(settings, table)
        spent = judge_budget.load_spent(settings.state_dir / BUDGET_FILE)
    except GuardError as error:
        return "fault", "judge", str(error), "until then nothing is asked"
    assert spec is not None
    usd, calls = (spent.usd, spent.calls_count) if spent.day == judge_budget.day_of(today) else (0.0, 0)
    of_usd, of_calls = f"{usd:.4f} of {spec.daily_usd:g} USD", f"{calls} of {spec.daily_calls_count} calls"
    return "ok", "judge budget", f"{spec.model}: today {of_usd}, {of_calls} spent", ""
