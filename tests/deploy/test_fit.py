"""Whether the files of `deploy/` fit each other and the program: what no schema of one kind can see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from guard.admin.server import STOP_S
from guard.pipeline import PipelineLimits
from guard.proxy import _FLUSH_S
from guard.settings.measuring import LogSettings
from guard.settings.traffic import TimeoutSettings
from tests.deploy.kit import DEPLOY, KUBERNETES, ROOT, needs, one, pod, run, sidecar
from tests.deploy.operator_schema import SCHEMAS

CONFIG = yaml.safe_load((KUBERNETES / "guard.yaml").read_text())
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
SIZES = {"Mi": 2**20, "Gi": 2**30}


def size(text: str) -> int:
    return int(text[:-2]) * SIZES[text[-2:]]


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


# -- objects of the Prometheus operator ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_the_operator_knows_every_field(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[kind])
    jsonschema.validate(one(kind), SCHEMAS[kind])


@pytest.mark.parametrize(
    ("kind", "place", "name", "value"),
    [
        ("ServiceMonitor", ("spec", "endpoints", 0), "honorLables", True),
        ("ServiceMonitor", ("spec", "endpoints", 0), "interval", "15"),
        ("ServiceMonitor", ("spec", "endpoints", 0), "port", 8801),
        ("ServiceMonitor", ("spec", "endpoints", 0, "relabelings", 0), "target_label", "job"),
        ("ServiceMonitor", ("spec",), "endpoint", []),
        ("ServiceMonitor", ("spec", "selector"), "app", "faq-bot"),
        ("PrometheusRule", ("spec", "groups", 0), "evaluation_interval", "15s"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), "keepFiringFor", "5m"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), "for", 120),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "labels"), "page", True),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0), "alert", "AlsoARecord"),
    ],
)
def test_a_field_it_does_not_know_is_seen(kind: str, place: tuple[str | int, ...], name: str, value: object) -> None:
    thing = one(kind)
    inner: Any = thing
    for key in place:
        inner = inner.setdefault(key, {}) if isinstance(key, str) else inner[key]
    inner[name] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(thing, SCHEMAS[kind])


def test_promtool_accepts_the_rules_of_the_object(tmp_path: Path) -> None:
    promtool = needs("promtool", "prometheus")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(one("PrometheusRule")["spec"]))
    checked = run(promtool, "check", "rules", rules)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_alert_on_a_guard_that_is_down_asks_for_the_job_that_the_operator_makes() -> None:
    (endpoint,) = one("ServiceMonitor")["spec"]["endpoints"]
    named = [r["replacement"] for r in endpoint.get("relabelings", []) if r.get("targetLabel") == "job"]
    job = named[-1] if named else one("Service")["metadata"]["name"]  # its own name for a job, without jobLabel
    rules = [rule for group in one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    (down,) = [rule["expr"] for rule in rules if rule.get("alert") == "SftGuardDown"]
    assert re.findall(r'up\{job="([^"]+)"\}', down) == [job]
    windows = next(group for group in one("PrometheusRule")["spec"]["groups"] if group["name"].endswith("-windows"))
    assert windows["interval"] == endpoint["interval"]  # the rules are made for one scrape interval
    assert endpoint["honorLabels"] is True  # or `service` is the operator's


# -- ports and addresses -------------------------------------------------------------------------------------------


def test_prometheus_comes_through_service_and_policy_to_the_admin_port() -> None:
    monitor, service, policy = one("ServiceMonitor")["spec"], one("Service"), one("NetworkPolicy")["spec"]
    template = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= template.items()
    assert policy["podSelector"]["matchLabels"].items() <= template.items()
    ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    containers = {p["name"]: p["containerPort"] for c in (sidecar(), *pod()["containers"]) for p in c["ports"]}
    assert set(ports.values()) <= set(containers)
    admin = containers[ports[monitor["endpoints"][0]["port"]]]
    assert admin == port_of(CONFIG["listen"]["admin"])
    (admitted,) = [rule for rule in policy["ingress"] if admin in {p["port"] for p in rule["ports"]}]
    assert admitted["from"], "only from where Prometheus is"
    assert containers["http"] in {p["port"] for rule in policy["ingress"] for p in rule["ports"]}
    (bot,) = pod()["containers"]
    asked = urlsplit({e["name"]: e["value"] for e in bot["env"]}["OPENAI_BASE_URL"])
    assert asked.netloc == CONFIG["listen"]["data"]


def test_the_policy_lets_out_what_the_configuration_names_and_questions_about_names() -> None:
    rules = one("NetworkPolicy")["spec"]["egress"]
    urls = [url for version in CONFIG["versions"].values() for url in version["upstreams"]]
    for url in (*urls, CONFIG["alertmanager"]["url"]):
        origin = urlsplit(url)
        namespace = (origin.hostname or "").split(".")[1]
        own = namespace == KUSTOMIZATION["namespace"]
        through = [to for rule in rules if origin.port in {p["port"] for p in rule["ports"]} for to in rule["to"]]
        namespaces = [list(to.get("namespaceSelector", {}).get("matchLabels", {}).values()) for to in through]
        assert namespaces in ([[]] if own else [[namespace]],), url
    (dns,) = [rule for rule in rules if 53 in {p["port"] for p in rule["ports"]}]
    assert {p["protocol"] for p in dns["ports"]} == {"UDP", "TCP"}
    assert "to" not in dns  # a cache of the node has an address of its own


def test_secrets_of_the_composition_are_not_sent_to_who_builds_the_image() -> None:
    secret = (DEPLOY / "compose" / ".gitignore").read_text().split()
    ignored = {line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().split()}
    assert {f"deploy/compose/{name.rstrip('/')}" for name in secret} <= ignored


# -- life of the pod, and what outlives it -------------------------------------------------------------------------


def stop_s() -> float:
    """What the end of a guard may ordinarily take: streams, their last bytes, checks, open pages of the console."""
    return TimeoutSettings().drain + _FLUSH_S + PipelineLimits().flush_s + STOP_S


def test_whoever_stops_the_guard_waits_for_streams_checks_and_log() -> None:
    unit = (DEPLOY / "systemd" / "sft-guard.service").read_text()
    assert float(re.findall(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[0]) > stop_s()
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    assert float(compose["services"]["guard"]["stop_grace_period"].removesuffix("s")) > stop_s()
    assert pod()["terminationGracePeriodSeconds"] > stop_s() + 30  # the bot ends first, in the same time


def test_the_guard_serves_before_the_bot_starts_and_until_it_has_ended() -> None:
    assert sidecar()["restartPolicy"] == "Always"
    assert [c["name"] for c in pod()["containers"]] == ["bot"]
    assert sidecar()["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_what_was_decided_outlives_the_pod_and_one_guard_has_it_at_a_time() -> None:
    state, deployment = CONFIG["state_dir"], one("Deployment")["spec"]
    (mount,) = [m for m in sidecar()["volumeMounts"] if Path(state).is_relative_to(m["mountPath"])]
    assert state != mount["mountPath"], "a volume's root belongs to root: the guard cannot close it to others"
    (volume,) = [v for v in pod()["volumes"] if v["name"] == mount["name"]]
    claim = one("PersistentVolumeClaim")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert size(claim["spec"]["resources"]["requests"]["storage"]) >= LogSettings().max_total + 2**30
    assert "exchange_log" not in CONFIG
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    assert KUSTOMIZATION["generatorOptions"]["disableNameSuffixHash"] is True  # a new file is a reload, no new pod


def test_with_a_read_only_root_every_place_that_is_written_is_a_volume() -> None:
    written = {m["mountPath"] for m in sidecar()["volumeMounts"] if not m.get("readOnly")}
    assert written == {"/tmp", "/var/lib/sft-guard"}
    assert {v["name"] for v in pod()["volumes"]} == {m["name"] for m in sidecar()["volumeMounts"]}
    home = re.findall(r"--home-dir (\S+)", (DEPLOY / "Dockerfile").read_text())
    assert home == ["/var/lib/sft-guard"]  # libraries write below it, if at all


@pytest.mark.parametrize("unit", sorted(path.name for path in (DEPLOY / "systemd").glob("*.service")))
def test_the_head_of_a_unit_makes_all_that_the_unit_needs(unit: str) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    head, _, body = text.partition("[Unit]")
    for user in re.findall(r"^User=(\S+)$", body, flags=re.MULTILINE):
        assert re.search(rf"^#   useradd .*\b{user}$", head, flags=re.MULTILINE), f"nobody makes the user {user}"
    files = re.findall(r"^(?:EnvironmentFile=|LoadCredential=\w+:)(/etc/\S+)$", body, flags=re.MULTILINE)
    for path in map(Path, files):
        assert re.search(rf"\b{re.escape(path.name)}\b.* {path.parent}/", head), f"nobody puts {path} there"
