"""The same rule gives the same verdict in the sidecar and in Prometheus, on the same events."""

from __future__ import annotations

import os
from pathlib import Path

from alerts.build import RULES, build
from alerts.model import Options
from alerts.yaml_text import to_yaml
from slo import series
from slo.metric_names import INDICATORS
from slo.spec import parse_slo
from slo.thresholds import Known
from tests.agreement_kit import FILE, SCRAPE_S, TICK_S, Watched, watch
from tests.alerts_kit import needs, run, write

LENGTH_S = 2400.0
EVERY_S = 30.0
STREAMS = int(os.environ.get("AGREEMENT_STREAMS", "6"))  # noqa: TID251 - more for a long run
FIRST_SEED = int(os.environ.get("AGREEMENT_SEED", "1"))  # noqa: TID251


def _series(watched: Watched) -> list[dict[str, str]]:
    """The counters as the exporter shows them, at each scrape."""
    slo, samples = watched.slo, watched.samples
    mean = INDICATORS[slo.indicator].kind == "mean"
    shown = {series.EVENTS: samples.events}
    shown |= {series.VALUES: samples.values, series.SQUARES: samples.squares} if mean else {series.BAD: samples.bad}
    if series.has_unjudged(slo):
        shown[series.UNJUDGED] = samples.unjudged
    labels = f'service="faq-bot",release="{watched.release}",slo="{slo.name}"'
    return [{"series": f"{name}{{{labels}}}", "values": " ".join(map(repr, values))} for name, values in shown.items()]


@needs("promtool", "prometheus")
def test_the_sidecar_and_prometheus_say_the_same_of_the_same_events(tmp_path: Path) -> None:
    slo_file = parse_slo(FILE)
    write(tmp_path, build(slo_file, Known(), Options(scrape_s=SCRAPE_S)))
    every = [w for seed in range(FIRST_SEED, FIRST_SEED + STREAMS) for w in watch(slo_file.objectives, seed, LENGTH_S)]
    inputs = [one for watched in every for one in _series(watched)]
    inputs += [
        {"series": f'sft_release_judged{{service="faq-bot",release="{r}"}}', "values": "1+0x1000"}
        for r in sorted({w.release for w in every})
    ]
    asked, compared, firing, moments = [], 0, 0, 0
    for step in range(2, int(LENGTH_S / EVERY_S)):
        at_s = step * EVERY_S
        tick = round(at_s / TICK_S)
        for slo in slo_file.objectives:
            of_slo = [w for w in every if w.slo is slo]
            sure = [w for w in of_slo if w.sure[tick]]
            moments, compared = moments + len(of_slo), compared + len(sure)
            if not sure:
                continue
            fire = [w.release for w in sure if w.fires[tick]]
            assert fire == [w.release for w in sure if w.counted[tick]], f"{slo.name} at {at_s:g} s: the sidecar is off"
            firing += len(fire)
            releases = "|".join(w.release for w in sure)
            select = f'alertstate="firing",kind="symptom",slo="{slo.name}",release=~"{releases}"'
            asked.append({
                "expr": f"max by (release) (ALERTS{{{select}}})",
                "eval_time": f"{at_s:g}s",
                "exp_samples": [{"labels": f'{{release="{r}"}}', "value": 1} for r in fire],
            })  # fmt: skip
    document = {
        "rule_files": [RULES],
        "evaluation_interval": f"{SCRAPE_S:g}s",
        "tests": [{"interval": f"{SCRAPE_S:g}s", "input_series": inputs, "promql_expr_test": asked}],
    }
    (tmp_path / "agreement.yml").write_text(to_yaml(document, "agreement"), encoding="utf-8")
    code, said = run(tmp_path, "promtool", "test", "rules", "agreement.yml")
    print(f"{moments} moments, {compared} compared ({firing} firing), {moments - compared} left out")
    assert code == 0, said[:6000]
    # A test that leaves everything out would always pass.
    assert compared > 0.6 * moments
    assert 0.1 * compared < firing < 0.9 * compared
