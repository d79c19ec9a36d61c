"""Every page: links lead somewhere, blocks are what they say, commands and settings are ones that exist."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
from fnmatch import fnmatch

import pytest

from alerts.build import groups_of
from alerts.model import Options
from alerts.runbooks import OWN
from exporters.labels import closed_set
from guard.cli import build_parser
from guard.ports import Reason
from guard.private_state import OWN_DIRECTORIES, OWN_FILES
from guard.reference import DOCS, PAGES
from slo.metric_names import INDICATORS, METRICS
from slo.spec import PRESETS, parse_slo
from slo.thresholds import Known
from tests.docs.pages import ROOT, Block, all_blocks, blocks, commands, links, pages, prose, spans

LANGUAGES = {"sh", "python", "yaml", "json", "promql", "text"}
TOOLS = {"cd", "curl", "export", "pip", "promtool", "amtool", "make", "kubectl", "docker", "sh", "systemctl",
         "journalctl", "python", "vllm", "openssl", "sudo", "git", "cp", "kill",
         "redis-cli"}  # fmt: skip
"""Programs other than ours that a reader is told to run."""
OTHER_NAMES = {"sft_guard_objective"}
"""Words that look like a metric of the guard and are none."""


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_up_to_date(name: str) -> None:
    path = DOCS / name
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - test switch
        path.write_text(PAGES[name](), encoding="utf-8")
    assert PAGES[name]() == path.read_text(encoding="utf-8"), (
        "run `python -m guard.reference` and review the difference"
    )


@pytest.mark.parametrize("name", ["settings.md", "commands.md"])
def test_every_setting_and_every_argument_says_what_it_is_for(name: str) -> None:
    rows = [line for line in PAGES[name]().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_commands_are_shown_as_help_shows_them_and_settings_as_people_write_them() -> None:
    page = PAGES["commands.md"]()
    assert [line for line in page.splitlines() if "%(" in line or "%%" in line] == []
    assert "default, short, or `20% for 2h`" in page
    rows = set(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", PAGES["settings.md"](), re.MULTILINE))
    assert {("keep", "30d"), ("max_total", "10GiB"), ("first_byte", "1m"), ("request_head", "64KiB")} <= rows
    plain = {name for name, default in rows if re.fullmatch(r"[\d.]+e[+-]\d+|\d{5,}", default)}
    assert plain == {"entries", "learn", "connections"}  # numbers of things


RUNBOOKS = {
    alert.name: (alert.labels.get("action", ""), alert.runbook)
    for preset in PRESETS
    for group in groups_of(parse_slo(f"service: faq-bot\npreset: {preset}\n"), Known(), Options())
    for alert in group.alerts
} | {name: ("", book) for name, (_, book) in OWN.items()}


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_a_runbook_says_what_to_do_about_what_is_seen(name: str) -> None:
    action, book = RUNBOOKS[name]
    assert book.then or name == "SftGuardDrill"
    for other in re.findall(r"\bSft[A-Z]\w+\b", " ".join(book.then)):
        assert other in RUNBOOKS
    for span in re.findall(r"`(sft-guard [^`]+)`", " ".join(book.then)):
        assert _flags(span.split()[1:])[0], f"{span}: no such command"
    back = any("release rollback" in command for _, command in book.look)
    assert not (back and (action == "track" or "SharedUpstream" in name or name.endswith(("Burn3x", "Burn1x"))))


def test_runbooks_show_their_queries() -> None:
    entry = PAGES["runbooks.md"]().split("\n## SftSloP95\n")[1].split("\n## ")[0]
    assert "```promql\n" in entry
    assert "histogram_quantile(0.95" in entry
    assert "sum by (release, outcome)" in PAGES["runbooks.md"]()


def _anchors(page: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head).lower() for head in heads)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "")).strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", sorted(pages()))
def test_links_lead_somewhere(page: str) -> None:
    lost = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists() or (anchor and anchor not in _anchors(str(path.resolve().relative_to(ROOT)))):
            lost.append(link)
    assert lost == []


def test_every_page_of_the_documentation_is_reached_from_the_readme() -> None:
    seen, todo = set(), ["README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page not in pages():
            continue
        seen.add(page)
        for link in links(page):
            target = (ROOT / page).parent / link.partition("#")[0]
            if not re.match(r"[a-z]+:", link) and target.suffix == ".md" and target.exists():
                todo.append(str(target.resolve().relative_to(ROOT)))
    assert {page for page in pages() if page.startswith("docs/")} - seen == set()


@pytest.mark.parametrize("page", sorted(pages()))
def test_every_block_says_what_it_is(page: str) -> None:
    assert [f"{b}: {b.language!r}" for b in blocks(page) if b.language not in LANGUAGES] == []
    assert "```" not in prose(page)


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        rows = [json.loads(line) for line in block.text.splitlines()]
        assert len(rows) > 1


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def _wrong(words: list[str]) -> str:
    """What is wrong with one command of a block, "" if nothing."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return ""
    program = words[0]
    if program in {"sft-guard", ".venv/bin/sft-guard"}:
        try:
            build_parser().parse_args(words[1:])
        except SystemExit:
            return "not a command of the program"
        return ""
    if program in {"python", ".venv/bin/python"} and words[1:2] == ["-m"]:
        return "" if importlib.util.find_spec(words[2]) else "no such module"
    if program == "make":
        return "" if words[1] in _targets() else "no such target"
    return "" if program in TOOLS or (ROOT / program).exists() else "unknown program"


@pytest.mark.parametrize("block", all_blocks("sh"), ids=str)
def test_commands_of_blocks_are_commands(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    mistakes = []
    for line in commands(block.text):
        wrong = _wrong(shlex.split(line.split(" | ")[0]))
        if wrong:
            mistakes.append(f"{line}: {wrong} {capsys.readouterr().err.strip()[-200:]}")
    assert mistakes == []


def _flags(words: list[str]) -> tuple[str, set[str]]:
    """The command that `words` begin with, and every flag it takes."""
    parser, used = build_parser(), []
    for word in words:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups or word not in groups[0].choices:
            if groups and not used:
                return "", set()
            break
        parser = groups[0].choices[word]
        used.append(word)
    return " ".join(used), {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", sorted(pages()))
def test_commands_within_a_sentence_exist(page: str) -> None:
    mistakes = []
    for span in spans(page):
        words = span.split()
        if words[0] in {"sft-guard", ".venv/bin/sft-guard"} and len(words) > 1:
            if words[1].startswith("-") or not re.fullmatch(r"[a-z]+", words[1]):
                continue
            command, flags = _flags(words[1:])
            unknown = [w for w in words if w.startswith("--") and w.partition("=")[0] not in flags]
            if not command or unknown:
                mistakes.append(f"{span}: {unknown or 'no such command'}")
        elif words[:2] in (["python", "-m"], [".venv/bin/python", "-m"]):
            if not importlib.util.find_spec(words[2]):
                mistakes.append(f"{span}: no such module")
        elif words[0] == "make" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            if words[1] not in _targets():
                mistakes.append(f"{span}: no such target")
        elif (
            re.fullmatch(
                r"(bench|tests|guard|slo|rag|registry|exporters|lora|alerts|dashboards|deploy|docs|scripts)/[\w./-]+\w",
                span,
            )
            and not (ROOT / span).exists()
        ):
            mistakes.append(f"{span}: no such file")
    assert mistakes == []


TEST = re.compile(r"^(tests/[\w/]+\.py)::(test_\w+)$")


@pytest.mark.parametrize("page", sorted(pages()))
def test_tests_that_a_page_names_exist(page: str) -> None:
    lost = []
    for span in spans(page):
        named = TEST.match(span)
        if named and not re.search(rf"def {named[2]}\b", _source(named[1])):
            lost.append(span)
    assert lost == []


def _source(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.mark.parametrize("page", sorted(pages()))
def test_metrics_that_a_page_names_exist(page: str) -> None:
    """Families, and series of a histogram or of the generated rules, by their beginning."""
    known = {*METRICS, *INDICATORS}
    named = {m for span in spans(page) for m in re.findall(r"\bsft_[a-z0-9_]+[a-z0-9]\b(?!\*|_)", span)}
    family = re.compile(r"_(bucket|count|sum|created)$")
    assert {name for name in named if family.sub("", name) not in known} - OTHER_NAMES == set()


@pytest.mark.parametrize("page", sorted(pages()))
def test_words_that_a_page_looks_for_are_ever_said(page: str) -> None:
    """Values of labels with a closed set, and types of the errors that stand beside their status."""
    text = pages()[page]
    for metric, labels in re.findall(r"\b(sft_\w+)\{([^}]*)\}", text):
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            words = closed_set(metric, label)
            assert words is None or set(value.split("|")) <= words, f'{metric}: no {label} is "{value}"'
    for types in re.findall(r"\b50[24] ((?:`\w+`(?:, )?)+)", text):
        assert set(re.findall(r"\w+", types)) <= {reason.value for reason in Reason}, types


def test_the_operations_page_names_every_file_of_the_state_directory() -> None:
    section = prose("docs/operations.md").split("## What to keep")[1].split("\n## ")[0]
    named = [name.rstrip("/") for name in re.findall(r"`([^`]+)`", section)]
    lost = [own for own in (*OWN_FILES, *OWN_DIRECTORIES) if not any(fnmatch(name, own) for name in named)]
    assert lost == []


def test_the_exchange_log_is_where_the_pages_say() -> None:
    named = {(page, log) for page, text in pages().items() for log in re.findall(r"--log ([\w/.-]+\w)", text)}
    assert len(named) > 5
    assert {(page, log) for page, log in named if log not in {"state/exchanges", "PATH"}} == set()


def test_the_architecture_names_every_room() -> None:
    rooms = {path.parent.relative_to(ROOT) for path in (*ROOT.glob("*/__init__.py"), *ROOT.glob("guard/*/__init__.py"))}
    named = {span.rstrip("/") for span in spans("docs/architecture.md")}
    assert {str(room) for room in rooms} - named == set()


def test_no_page_names_a_machine() -> None:
    """Paths of one machine, and where packages came from, are nobody's business."""
    lost = {page for page, text in pages().items() if re.search(r"(?<![\w.])/(work|root|home)/", text)}
    assert lost == set()
