"""The commands of the pages, run in order as a reader would: they end as the page says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.settings import load_settings
from slo.spec import parse_slo
from tests.docs.pages import ROOT, Block, all_blocks, blocks, commands, links, prose
from tests.docs.stage import Stage
from tests.lora_kit import adapter_directory

pytestmark = pytest.mark.slow
NOT_RUN = {
    "python -m bench": "benches run for minutes, most of them on evaluation sets that are not part of the project",
    "python bench/": "as above",
    "make": "the targets are what CI and the benches run",
    "docker compose": "needs a container engine; tests/deploy runs the same commands outside of one",
    "kubectl create": "needs a cluster; tests/deploy builds and checks what would be applied",
    "kubectl apply": "needs a cluster; tests/deploy builds and checks what would be applied",
    "kubectl exec": "needs a cluster",
    "kubectl logs": "needs a cluster",
    "kubectl port-forward": "needs a cluster",
    "pip install": "changes the installation that runs the tests",
    "sft-guard embedder distill": "needs PyTorch and minutes; tests/unit/test_static_embedder.py distils a small one",
    "sft-guard registry serve --listen 0.0.0.0:8820 --database": "tests/contracts/test_registry_postgresql.py does it",
    "sft-guard ft": "needs the API of a provider; tests/contracts/test_finetune_api.py runs them against a stand-in",
    "sft-guard baseline collect --prometheus": "tests/contracts/test_prometheus_baseline.py does it with a real one",
    "sft-guard baseline capacity": "loads the machine for minutes; tests/unit/test_capacity.py runs it shortened",
    "sft-guard demo": "tests/e2e/test_demo_run.py",
    "curl -s http://127.0.0.1:9090": "asks a Prometheus; tests/e2e/test_alerting.py runs a real one",
    "sh deploy/kubernetes/prometheusrule.sh": "writes into the checkout; tests/deploy runs it beside it",
    "systemctl": "needs systemd; tests/deploy has it verify the unit",
    "redis-cli": "needs the Redis of the cache; tests/faults runs a real one",
}
"""Beginning of a command -> why it is not run here."""
NOT_RUN_PAGES = {
    "deploy/vllm/README.md": "needs vLLM, a GPU and a model of gigabytes; tests/deploy holds what can be",
    "docs/lora.md": "trains a model; tests/e2e/test_lora_path.py runs the whole path on a small one",
    "docs/lora-serving.md": "loads a model; tests/e2e/test_lora_serve.py serves a small one",
}


def _why_not(line: str) -> str:
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), "")


def runnable(page: str) -> list[Block]:
    """The shell blocks of a page without the lines that are not run."""
    found = []
    for block in blocks(page) if page not in NOT_RUN_PAGES else ():
        lines = [line for line in commands(block.text) if not _why_not(line.replace(".venv/bin/", ""))]
        if block.language == "sh" and lines:
            found.append(Block(block.page, block.line, block.language, "\n".join(lines)))
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as made:
        yield made


RUNBOOK_CODES = {"sft-guard release rollback": 2}
"""After the rollback above there is nothing left to go back to."""
CHAPTERS = {
    "README.md", "README.zh-TW.md", "docs/alerting.md", "docs/backtesting.md", "docs/baseline.md", "docs/cache.md",
    "docs/combiner.md", "docs/cost.md", "docs/dashboards.md", "docs/deploy.md", "docs/detectors.md",
    "docs/getting-started.md", "docs/getting-started.zh-TW.md", "docs/interop.md",
    "docs/kb-gate.md", "docs/knowledge-base.md", "docs/operations.md", "docs/registry.md", "docs/reports.md",
    "docs/routing.md", "docs/runbooks.md", "docs/vault.md",
}  # fmt: skip
"""Pages whose commands are run below."""


def test_every_page_with_commands_is_a_chapter() -> None:
    assert {b.page for b in all_blocks("sh") if runnable(b.page)} == CHAPTERS
    assert {b.page for b in all_blocks("python")} == {"README.md", "README.zh-TW.md", "docs/lora.md"}


def test_reasons_for_not_running_are_still_needed() -> None:
    lines = [line.replace(".venv/bin/", "") for b in all_blocks("sh") for line in commands(b.text)]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


def test_the_python_of_the_lora_page_runs() -> None:
    code = next(b.text for b in blocks("docs/lora.md") if b.language == "python")
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert told.stdout.endswith(" ms\n")


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_chinese_page_says_the_same(page: str) -> None:
    chinese = page.replace(".md", ".zh-TW.md")

    def told(name: str) -> list[str]:
        """Its commands in order, those that are not run here too; the question to the demo is each in its language."""
        lines = [line for b in blocks(name) if b.language == "sh" for line in commands(b.text)]
        return [line.partition(" -d ")[0] for line in lines] + [b.text for b in blocks(name) if b.language == "python"]

    def outline(name: str) -> list[str]:
        """Headings, rows and items without their words."""
        return re.findall(r"^(#+ |\||- )", prose(name), re.MULTILINE)

    def targets(name: str) -> set[str]:
        return {link.replace(".zh-TW", "") for link in links(name) if not link.endswith(".png")}

    assert told(chinese) == told(page)
    assert outline(chinese) == outline(page)
    assert targets(chinese) == targets(page)


def test_the_readme_and_the_first_steps_from_the_first_command_to_the_last(stage: Stage) -> None:
    page = "README.md"
    shown = [*runnable(page), *runnable("docs/getting-started.md")]
    chinese = next(b for b in runnable("README.zh-TW.md") if "curl" in b.text)
    asked = next(b for b in shown if "curl" in b.text)
    python = next(b for b in blocks(page) if b.language == "python")
    flags = [f"--{name}-port {stage.ports[port]}" for name, port in (("data", 8800), ("admin", 8801), ("answer", 8810))]
    with Stage(_below(stage, "demo")) as demo:
        demo.ports = stage.ports
        demo.shell(f"sft-guard demo {' '.join(flags)}")
        answer = json.loads("".join(demo.run(asked)))
        assert "16 days" in answer["choices"][0]["message"]["content"]
        assert "16 \u5929" in json.loads("".join(demo.run(chinese)))["choices"][0]["message"]["content"]
        code = demo.moved(python.text) + (
            "\nanswer = client.chat.completions.create(model='demo', messages=[{'role': 'user', 'content': '?'}])"
            "\nprint(answer.choices[0].message.role)"
        )
        (demo.directory / "client.py").write_text(code, encoding="utf-8")
        assert demo.shell(f"{sys.executable} client.py").strip() == "assistant"
    stage.model()
    init, *rest = [b for b in shown if "curl" not in b.text]
    stage.run(init)
    stage.second_version()
    stage.log()
    for block in rest:
        stage.run(block)
        if "SFT_GUARD_TOKEN" in block.text:  # `serve` needs it as well
            stage.stop()
            stage.serve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFT_GUARD_TOKEN", stage.environment["SFT_GUARD_TOKEN"])
        assert load_settings(stage.directory / "guard.yaml")


def _below(stage: Stage, name: str) -> Path:
    directory = stage.directory / name
    directory.mkdir()
    return directory


def test_alerts_dashboards_and_other_tools(stage: Stage) -> None:
    for program in ("promtool", "amtool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: Debian packages prometheus, prometheus-alertmanager")
    stage.configuration()
    stage.log()
    stage.shell("sft-guard baseline collect -c guard.yaml --log state/exchanges --out baseline.json")
    for block in runnable("docs/dashboards.md"):
        stage.run(block)
    (stage.directory / "sloth.yaml").unlink(missing_ok=True)
    for block in runnable("docs/interop.md"):
        stage.run(block)
    assert parse_slo((stage.directory / "slo.yaml").read_text(encoding="utf-8")).objectives
    for block in runnable("docs/alerting.md"):
        stage.run(block)


def test_baselines_back_tests_costs_and_reports(stage: Stage) -> None:
    stage.configuration()
    stage.log()
    stage.serve()
    stage.shell("sft-guard baseline collect -c guard.yaml --log state/exchanges --out last-month.json")
    for page in ("docs/baseline.md", "docs/backtesting.md", "docs/cost.md", "docs/reports.md"):
        for block in runnable(page):
            stage.run(block, {"sft-guard cost advise": 1})  # 1: what must be in place first is not
    assert (stage.directory / "report.html").stat().st_size > 1000


def test_the_person_on_call(stage: Stage) -> None:
    stage.configuration()
    stage.log()
    stage.serve()
    exchange = stage.ask()
    by_hand, release = runnable("docs/operations.md")
    stage.run(release)
    stage.shell("sft-guard release start v1.2.1 --again")
    stage.run(by_hand)
    seen: set[str] = set()
    for block in runnable("docs/runbooks.md"):
        for line in commands(block.text):
            if line not in seen:
                seen.add(line)
                stage.shell(line.replace("INCIDENT_ID", _incident(stage)), str(block), RUNBOOK_CODES)
    for block in runnable("docs/detectors.md"):
        for line in commands(block.text):
            assert "error" not in stage.shell(line.replace('"exchange_id": "..."', f'"exchange_id": "{exchange}"'))


def _incident(stage: Stage) -> str:
    listed = json.loads(stage.shell("sft-guard incident list --json").splitlines()[-1])
    return str(listed["incidents"][0]["id"])


ROWS = [
    {"doc_id": f"rule-{n:02}", "title": f"Rule {n}", "text": text}
    for n, text in enumerate(
        (
            "Employees receive 14 days of annual leave per year. Unused days expire on 31 March.",
            "Parking costs 40 dollars a month. Bicycles are free of charge.",
            "The canteen is open from 11:30 to 14:00 and takes cash and cards.",
            "A laptop that is lost is reported to the help desk within one hour.",
        )
    )
]


def _knowledge(stage: Stage) -> None:
    """What the pages about knowledge bases name: documents, new rows, questions with known documents."""
    place = stage.directory
    lines = [json.dumps(row) for row in ROWS]
    (place / "rules.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (place / "handbook.md").write_text("# Travel\n\nTrains are booked two weeks ahead.\n", encoding="utf-8")
    (place / "prices.csv").write_text("doc_id,title,text\np1,Coffee,A coffee costs 2 dollars.\n", encoding="utf-8")
    fresh = {"doc_id": "rule-09", "title": "Rule 9", "text": "Visitors sign in at the desk and wear a yellow badge."}
    (place / "new.jsonl").write_text(json.dumps(fresh), encoding="utf-8")
    asked = [("How many days of annual leave?", 0), ("What does parking cost?", 1), ("When is the canteen open?", 2)]
    golden = [{"question": question, "doc_id": ROWS[number]["doc_id"]} for question, number in asked]
    (place / "golden.jsonl").write_text("\n".join(map(json.dumps, golden)), encoding="utf-8")


def test_knowledge_bases_routes_and_the_registry(stage: Stage) -> None:
    _knowledge(stage)
    first, second = runnable("docs/knowledge-base.md")
    for line in commands(first.text):
        stage.shell(line.replace(" guide.pdf", ""), str(first))
    registry, *others = commands(runnable("docs/registry.md")[0].text)
    stage.shell(registry)
    for block in runnable("docs/kb-gate.md"):
        stage.run(block)
    versions = json.loads(stage.shell("sft-guard registry show faq-kb --json").splitlines()[-1])["versions"]
    name = versions[0]["version"]
    stage.shell(f"sft-guard registry transition faq-kb {name} Staging --token-env REGISTRY_TOKEN")
    for line in sorted(others, key=lambda line: "transition" not in line):
        line = line.replace("2-kb+1750000000", name).replace(" --if-production 1-kb+1749000000", "")
        stage.shell(line, "docs/registry.md")
    shutil.copytree(stage.directory / "kb", stage.directory / "kb-next")
    stage.stop()
    stage.run(Block(second.page, second.line, "sh", second.text.replace("kb@6", "kb@1")))
    stage.stop()
    _routes(stage)
    for block in runnable("docs/routing.md"):
        stage.run(block)


def _routes(stage: Stage) -> None:
    """The routes.yaml of the page without models, and labelled questions."""
    text = next(b.text for b in blocks("docs/routing.md") if b.language == "yaml")
    kept = "answers:" + text.split("answers:", 1)[1]
    (stage.directory / "routes.yaml").write_text("thresholds_file: thresholds.json\n" + kept, encoding="utf-8")
    about = ("annual leave", "parking", "the canteen", "a lost laptop")
    asked = [(f"What is the rule about {about[n % 4]}, case {n}?", "kb") for n in range(24)]
    asked += [(f"Write a poem number {n} about the sea and the moon.", "model") for n in range(24)]
    rows = [json.dumps({"question": question, "route": route}) for question, route in asked]
    (stage.directory / "labelled.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_cache_combiner_image_and_vault(stage: Stage) -> None:
    stage.configuration()
    stage.serve()
    stage.ask()
    for block in runnable("docs/cache.md"):
        stage.run(block, {"sft-guard cache inspect": 1})  # no answer of the stage has that key
    (stage.directory / "labelled.jsonl").write_text("\n".join(_labelled()), encoding="utf-8")
    for block in runnable("docs/combiner.md"):
        stage.run(block)
    for block in runnable("docs/deploy.md"):
        if shutil.which("kubectl") is not None or "kubectl" not in block.text:
            stage.run(block)
    adapter_directory(stage.directory / "run" / "adapter")
    stage.environment["VAULT_TOKEN"] = ""
    for line in commands(runnable("docs/vault.md")[0].text):
        told = stage.shell(line.replace("VAULT_TOKEN=...", f"VAULT_TOKEN={stage.environment['VAULT_TOKEN']}"))
        if " token " in line:
            stage.environment["VAULT_TOKEN"] = told.split()[-1]


def _labelled() -> list[str]:
    """80 answers of each kind."""
    rows = []
    for n in range(160):
        context = f"The fee for service number {n} is {n + 20} dollars and it is paid within {n % 9 + 3} days."
        said = n + 20 if n % 2 else n + 45
        answer = f"The fee is {said} dollars."
        question = f"What is the fee for service number {n}?"
        row = {
            "question": question,
            "contexts": [context],
            "answer": answer,
            "hallucinated": n % 2 == 0,
            "group": f"g{n}",
        }
        rows.append(json.dumps(row))
    return rows
