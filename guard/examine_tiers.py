"""Tries the slower grounding tiers for `sft-guard doctor`: loads the model as its process would, reads the budget."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from guard.checks import judge_budget
from guard.checks.calibration import PATH as CALIBRATION_PATH
from guard.checks.calibration import load_calibration
from guard.checks.detector_spec import DetectorSpec
from guard.settings import Settings
from guard.slower_tiers import BUDGET_FILE, detector_spec, judge_spec
from slo.clock import SystemClock
from slo.errors import GuardError
from slo.pricing import PriceTable

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
    yield _transformer(settings)
    spec = detector_spec(settings)
    if spec is None:
        yield "ok", "detector", "none; `checks.detector` adds a model for claims in doubt (docs/detectors.md)", ""
    else:
        yield _detector(spec)
    if checks.judge is not None:
        yield _judge(settings)


def _transformer(settings: Settings) -> Found:
    """Whether the embedder for claims in doubt is there and was calibrated for."""
    checks, subject = settings.file.checks, "transformer"
    if checks.transformer == "none":
        adds = "an embedder can be asked about claims in doubt; all-MiniLM-L6-v2 added nothing (docs/accuracy.md)"
        return "ok", subject, f"none; {adds}", ""
    from rag.embedding import INSTALL_LINE, embedder_status, load_embedder

    ok, line = embedder_status(checks.transformer)
    if not ok:
        return "warn", subject, f"{line}; claims in doubt are judged by words", INSTALL_LINE
    try:
        calibration = load_calibration(settings.resolve(checks.calibration) if checks.calibration else CALIBRATION_PATH)
        embedder = load_embedder(checks.transformer)
    except GuardError as error:
        return "fault", subject, str(error), "until then claims in doubt are judged by words"
    name = f"{embedder.name}@{embedder.fingerprint}" if embedder is not None else "none"
    languages = [k for k, v in calibration.languages.items() if v.cosine]
    if not languages or calibration.embedder != name:
        made = f"made with {calibration.embedder}" if languages else "without numbers of any transformer"
        cure = f"sft-guard combiner train --transformer {checks.transformer} --data FILE --out FILE"
        return "warn", subject, f"{name} is not used: the calibration is {made}", f"{cure}, and checks.calibration"
    return "ok", subject, f"{name} is asked about claims in doubt: {', '.join(languages)}", ""


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
