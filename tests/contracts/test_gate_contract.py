"""The gate as Argo Rollouts and Flagger use it, with the very snippets that docs/gates.md gives them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from guard.admin.hooks import GO_ON, PREFIX
from guard.backend import GuardBackend
from guard.judge import Judged, Judgement
from guard.release.state import Phase, ReleaseState
from slo.types import Action, ActionKind, Compared, Comparison, State, Verdict
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, BREACH, GOOD, VERSIONS
from tests.unit.admin_helpers import TOKEN, Site

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
SNIPPETS: dict[str, Any] = {
    document["kind"]: document for document in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}
WEBHOOKS: list[dict[str, Any]] = SNIPPETS["Canary"]["spec"]["analysis"]["webhooks"]
HOST = "sft-guard.bots.svc"
VERDICTS = ("pass", "fail", "inconclusive")


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


def site(verdict: str, **words: Any) -> Site:
    made = Site(allowed_hosts=(HOST,), **words)
    made.backend.verdict = verdict
    return made


def asked(url: str) -> tuple[str, str, str]:
    """Host, path and query of a URL; Argo has put its arguments in."""
    parts = urlsplit(url.replace("{{args.release}}", "v1.2.1"))
    assert parts.scheme == "http"
    return parts.netloc, parts.path, parts.query


def flagger_body(hook: dict[str, Any]) -> dict[str, Any]:
    """What Flagger posts (github.com/fluxcd/flagger, CanaryWebhookPayload), and a field of tomorrow."""
    return {
        "name": "faq-bot", "namespace": "bots", "phase": "Progressing", "checksum": "85d557f47b",
        "metadata": hook.get("metadata", {}), "someday": {"more": 1},
    }  # fmt: skip


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_argo_reads_the_verdict_by_its_json_path(verdict: str) -> None:
    (metric,) = SNIPPETS["AnalysisTemplate"]["spec"]["metrics"]
    web = metric["provider"]["web"]
    host, path, query = asked(web["url"])
    answer = await site(verdict).ask("GET", path, query=query, host=host)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    steps = re.fullmatch(r"\{\$\.([\w.]+)\}", web["jsonPath"])
    assert steps is not None
    result: Any = answer.json
    for step in steps[1].split("."):
        result = result[step]
    assert result == verdict
    assert answer.json["data"]["release"] == "v1.2.1"
    for condition, wanted in ((metric["successCondition"], "pass"), (metric["failureCondition"], "fail")):
        assert condition == f'result == "{wanted}"'


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("hook", WEBHOOKS, ids=lambda hook: str(hook["type"]))
async def test_flagger_goes_on_by_pass_and_back_by_fail_and_by_nothing_else(hook: dict[str, Any], verdict: str) -> None:
    host, path, query = asked(hook["url"])
    assert path == PREFIX + hook["type"]
    answer = await site(verdict, protect_reads=False).ask("POST", path, flagger_body(hook), query=query, host=host)
    wanted = "fail" if hook["type"] == "rollback" else "pass"
    assert answer.status == (200 if verdict == wanted else 409)
    # confirm-rollout without a release asks about stable
    assert answer.json["data"]["release"] == ("abc123" if hook["type"] == "confirm-rollout" else "v1.2.1")


async def test_no_verdict_is_a_2xx_for_both_a_confirm_and_a_rollback_hook() -> None:
    for verdict in VERDICTS:
        said = {hook: (await site(verdict).ask("POST", PREFIX + hook, host=HOST)).status for hook in GO_ON}
        assert not (said["rollback"] == 200 and 200 in {v for k, v in said.items() if k != "rollback"})


@pytest.mark.parametrize("hook", GO_ON)
@pytest.mark.parametrize(
    "trouble", ["other host", "not json", "a list", "metadata of another kind", "broken backend", "GET", "form"]
)
async def test_a_hook_that_cannot_be_answered_is_never_a_2xx(hook: str, trouble: str) -> None:
    made = site("pass" if hook != "rollback" else "fail")
    method, body, headers = "POST", b'{"name": "faq-bot"}', {}
    if trouble == "not json":
        body = b"{"
    elif trouble == "a list":
        body = b"[]"
    elif trouble == "metadata of another kind":
        body = b'{"metadata": {"release": ["v1"]}}'
    elif trouble == "GET":
        method = "GET"
    elif trouble == "form":
        headers = {"content-type": "application/x-www-form-urlencoded"}
    elif trouble == "broken backend":
        made.backend.gate = lambda _release: 1 / 0  # type: ignore[assignment,method-assign]
    host = "evil.example" if trouble == "other host" else HOST
    answer = await made.ask(method, PREFIX + hook, body, headers=headers, host=host)
    assert answer.status >= 400
    assert "verdict" not in answer.json


async def test_hooks_carry_no_token_and_give_no_way_to_change_anything() -> None:
    for token in (None, TOKEN):
        made = site("pass", token=token)
        for hook in GO_ON:
            assert (await made.ask("POST", PREFIX + hook, host=HOST)).status in (200, 409)
            assert (await made.ask("PUT", PREFIX + hook, host=HOST)).status in (401, 404)
        assert (await made.ask("POST", PREFIX + "post-rollout", host=HOST)).status in (401, 404)
        assert made.backend.commands == []


def guard(state: ReleaseState, *verdicts: Verdict, ago_s: float = 1.0) -> GuardBackend:
    judged = tuple(Judged(v, "canary", v.value, None) for v in verdicts)
    last = Judgement(0.0, Action(ActionKind.HOLD, "waiting"), judged)
    parts: Any = SimpleNamespace(
        judge=SimpleNamespace(last=last, last_s=100.0 - ago_s),
        clock=SimpleNamespace(now_s=lambda: 100.0),
        started_s=0.0,
        settings=SimpleNamespace(
            targets={n: SimpleNamespace(version=v) for n, v in VERSIONS.items()},
            file=SimpleNamespace(release=SimpleNamespace(evaluate_every=5.0)),
        ),
        version_of=VERSIONS.get,
        controller=SimpleNamespace(state=state),
    )
    return GuardBackend(parts)


ROLLING = ReleaseState("faq-bot", GOOD.name, canary=BAD.name, canary_ratio=0.1, phase=Phase.ROLLING_OUT)
ROLLED_BACK = replace(ROLLING, canary_ratio=0.0, phase=Phase.ROLLED_BACK, barred=(BAD.name,))
OK = replace(BREACH, state=State.OK, firing=False)


def beside_stable(result: Compared, verdict: Verdict = OK) -> Verdict:
    return replace(verdict, comparison=Comparison(result, f"{result} beside stable"))


@pytest.mark.parametrize(
    ("state", "release", "verdicts", "ago_s", "wanted"),
    [
        (ROLLING, "", (OK,), 1.0, "pass"),
        (ROLLING, "", (beside_stable(Compared.PASS),), 1.0, "pass"),
        (ROLLING, "", (OK, beside_stable(Compared.INCONCLUSIVE)), 1.0, "inconclusive"),
        (ROLLING, "", (OK, beside_stable(Compared.UNKNOWN)), 1.0, "inconclusive"),
        (ROLLING, "", (OK, beside_stable(Compared.FAIL)), 1.0, "fail"),
        (ROLLING, "", (beside_stable(Compared.FAIL, replace(OK, state=State.UNKNOWN)),), 1.0, "fail"),
        (ROLLING, BAD.release_id, (OK,), 1.0, "pass"),
        (ROLLING, "", (BREACH,), 1.0, "fail"),
        (ROLLING, "", (replace(BREACH, firing=False),), 1.0, "inconclusive"),
        (ROLLING, "", (replace(OK, state=State.UNKNOWN),), 1.0, "inconclusive"),
        (ROLLING, "", (OK,), 15.1, "inconclusive"),
        (ROLLING, "v9", (OK,), 1.0, "inconclusive"),
        (ROLLING, GOOD.name, (OK,), 1.0, "inconclusive"),
        (ROLLED_BACK, "", (), 1.0, "fail"),  # it is not judged any more, and Flagger asks once a minute
        (ROLLED_BACK, BAD.release_id, (), 99.0, "fail"),
        (ROLLED_BACK, GOOD.name, (replace(OK, release=GOOD.release_id),), 1.0, "pass"),
    ],
)
def test_what_the_guard_says_of_a_release(
    state: ReleaseState, release: str, verdicts: tuple[Verdict, ...], ago_s: float, wanted: str
) -> None:
    said = guard(state, *verdicts, ago_s=ago_s).gate(release).data
    assert said.verdict == wanted
    assert "\n" not in said.reason
