"""docs/alerting.md: its commands parse, its files load, its queries are PromQL, its alerts exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from alerts.build import RULES
from alerts.yaml_text import to_yaml
from guard.admin.alerts_in import read_delivery
from guard.cli import build_parser
from guard.settings.release import AlertmanagerSettings
from slo.spec import parse_slo
from tests.alerts_kit import built, needs, run

DOC = (Path(__file__).parents[2] / "docs" / "alerting.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def test_every_command_is_one() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "sft-guard":
            assert build_parser().parse_args(words[1:]).run
        else:
            assert words[0] in {"cd", "promtool", "amtool"}
    files = {*built("preset support-faq"), "alerts-out"}
    named = {word for line in lines for word in shlex.split(line) if word.endswith(".yml")}
    assert named <= files


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_block_loads(text: str) -> None:
    document = yaml.safe_load(text)
    if "alertmanager" in document:
        AlertmanagerSettings.model_validate(document["alertmanager"])
    else:
        assert parse_slo(text).outside


def test_the_delivery_is_one() -> None:
    (text,) = blocks("json")
    batch = read_delivery(json.dumps(json.loads(text)).encode())
    assert batch.alerts[0].labels["alertname"] == "GpuMemoryExhausted"


@needs("promtool", "prometheus")
def test_every_query_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"a:b{n}", "expr": text} for n, text in enumerate(blocks("promql"))]
    (tmp_path / "r.yml").write_text(to_yaml({"groups": [{"name": "g", "rules": rules}]}, "docs"))
    code, said = run(tmp_path, "promtool", "check", "rules", "r.yml")
    assert code == 0, said


def test_every_alert_that_is_named_exists() -> None:
    files = built("preset support-faq")
    for name in re.findall(r"`(Sft[A-Za-z0-9]+)`", DOC):
        assert f"runbooks/{name}.md" in files, name
    for series in re.findall(r"`(sft_slo_\w+_total)`", DOC):
        assert series in files[RULES]
