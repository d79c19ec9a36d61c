"""What is deployed: schemas of the tools themselves, and the same commands outside a container."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.image import instructions
from tests.deploy.kit import DEPLOY, GUARD, KUBERNETES, ROOT, needs, objects, pod, run, sidecar

IMAGE_EXTRAS = ("redis", "postgres", "otel", "analysis", "kb")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/compose after prepare.sh, somewhere else."""
    place = tmp_path_factory.mktemp("compose")
    for name in ("prepare.sh", "compose.yaml"):
        shutil.copy(DEPLOY / "compose" / name, place / name)
    shutil.copytree(DEPLOY / "compose" / "guard", place / "guard")
    made = run("sh", place / "prepare.sh")
    assert made.returncode == 0, made.stderr
    return place


def variables(place: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (place / ".env").read_text().split())


def test_the_composition_has_the_form_of_the_compose_specification() -> None:
    checked = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
                  DEPLOY / "compose" / "compose.yaml")  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_the_composition_knows_the_host_that_its_guard_asks_on_linux_too() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    assert "//host.docker.internal:" in (DEPLOY / "compose" / "guard" / "guard.yaml").read_text()
    assert compose["services"]["guard"]["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_every_file_that_the_composition_mounts_is_made_and_repeating_keeps_the_secrets(composed: Path) -> None:
    compose = yaml.safe_load((composed / "compose.yaml").read_text())
    mounts = [v.split(":")[0] for s in compose["services"].values() for v in s.get("volumes", []) if v.startswith("./")]
    assert len(mounts) >= 7
    assert [mount for mount in mounts if not (composed / mount).exists()] == []
    # A file that is mounted alone is the old one for ever once an editor has put a new one in its place.
    assert [mount for mount in mounts if not (composed / mount).is_dir()] == []
    secrets = [composed / "generated" / "guard-token" / "token", composed / ".env"]
    before = [path.read_text() for path in secrets]
    assert run("sh", composed / "prepare.sh").returncode == 0
    assert [path.read_text() for path in secrets] == before
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (composed / "compose.yaml").read_text()))
    assert asked == set(variables(composed))


def test_the_guard_of_the_composition_accepts_its_configuration(composed: Path) -> None:
    compose = yaml.safe_load((composed / "compose.yaml").read_text())
    text = (composed / "guard" / "guard.yaml").read_text()
    for mount in compose["services"]["guard"]["volumes"]:
        source, target = mount.split(":")[:2]
        if source.startswith("./"):
            text = text.replace(f"{target}/", f"{composed / source}/")  # where the composition mounts it
    (composed / "guard" / "here.yaml").write_text(text)
    checked = run(GUARD, "check", composed / "guard" / "here.yaml", **variables(composed))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_and_alertmanager_accept_what_is_mounted_for_them(composed: Path) -> None:
    generated = composed / "generated"
    promtool = needs("promtool", "prometheus")
    assert "guard:8801" in (generated / "prometheus" / "prometheus.yml").read_text()
    checked = run(promtool, "check", "config", generated / "prometheus" / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    amtool = needs("amtool", "prometheus-alertmanager")
    checked = run(amtool, "check-config", generated / "alertmanager" / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_kubernetes_accepts_every_object_of_its_own_kinds() -> None:
    own = [o for o in objects() if not o["apiVersion"].startswith("monitoring.coreos.com")]
    assert {o["kind"] for o in own} == {"Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service"}
    for thing in own:
        kubernetes_validate.validate(thing, "1.31", strict=True)


def test_the_sidecar_runs_with_as_little_as_it_needs_and_its_probes_ask_the_admin_port() -> None:
    guard = sidecar()
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert guard["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert guard[probe]["httpGet"]["port"] == "guard-admin"
    config = yaml.safe_load((KUBERNETES / "guard.yaml").read_text())
    assert config["listen"]["data"].startswith("127.0.0.1:")  # only the bot in the pod may ask it


def test_the_guard_of_the_sidecar_and_of_vllm_accept_their_configuration(tmp_path: Path) -> None:
    for name in ("kubernetes", "vllm"):
        place = tmp_path / name
        place.mkdir()
        text = (DEPLOY / name / "guard.yaml").read_text().replace("/etc/sft-guard-token/token", "token")
        (place / "guard.yaml").write_text(text)
        (place / "token").write_text("0123456789abcdef0123")
        shutil.copy(DEPLOY / name / "slo.yaml", place / "slo.yaml")
        checked = run(GUARD, "check", place / "guard.yaml")
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_vllm_is_started_with_the_names_that_its_guard_asks_for(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)
    started = run("sh", DEPLOY / "vllm" / "serve.sh", PATH=f"{tmp_path}:/usr/bin:/bin", BASE="some/base")
    words = started.stdout.splitlines()
    assert words[:2] == ["serve", "some/base"]
    config = yaml.safe_load((DEPLOY / "vllm" / "guard.yaml").read_text())
    asked = {version["rename_model"] for version in config["versions"].values()}
    assert {word.partition("=")[0] for word in words if "=/run/adapters/" in word} == asked
    guards = yaml.safe_load(words[words.index("--override-generation-config") + 1])
    assert {"temperature", "max_new_tokens", "repetition_penalty"} == set(guards)
    upstreams = {url for version in config["versions"].values() for url in version["upstreams"]}
    assert upstreams == {f"http://{words[words.index('--host') + 1]}:{words[words.index('--port') + 1]}"}


def test_the_prometheus_rule_is_what_slo_yaml_gives(tmp_path: Path) -> None:
    made = run("sh", KUBERNETES / "prometheusrule.sh", tmp_path / "rule.yaml")
    assert made.returncode == 0, made.stderr
    committed = (KUBERNETES / "prometheusrule.yaml").read_text()
    assert (tmp_path / "rule.yaml").read_text() == committed, "run deploy/kubernetes/prometheusrule.sh"
    url = "https://wiki.example/runbooks/"
    made = run("sh", KUBERNETES / "prometheusrule.sh", tmp_path / "rule.yaml", "--runbook-url", url)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "rule.yaml").read_text() == committed.replace("runbook_url: runbooks/", f"runbook_url: {url}")


def test_kustomize_builds_the_whole() -> None:
    kubectl = needs("kubectl", "kubernetes-client")
    built = run(kubectl, "kustomize", KUBERNETES)
    assert built.returncode == 0, built.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(built.stdout)]
    assert sorted(kinds) == [
        "ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PrometheusRule", "Service",
        "ServiceMonitor",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["sft-guard", "sft-lora-serve"])
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    analyze = needs("systemd-analyze", "systemd")
    unit = tmp_path / f"{name}.service"
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    unit.write_text(re.sub(r"/opt/sft-(guard|lora)/bin/sft-guard", str(GUARD), text))
    checked = run(analyze, "verify", unit)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_image_installs_what_the_program_needs_at_the_tested_versions_by_hash() -> None:
    locked, tested = pins(DEPLOY / "requirements.lock"), pins(ROOT / "constraints.txt")
    built = pins(DEPLOY / "build.lock")
    assert "mypy" in built
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(d for extra in IMAGE_EXTRAS for d in project["optional-dependencies"][extra])]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=;!]", text)[0]).lower() for text in asked}
    assert names - set(locked) == set(), "a dependency is not in the lock: run scripts/lock.sh"
    assert {n: v for n, v in locked.items() if n in tested and tested[n] != v} == {}, "run scripts/lock.sh"
    assert {n: v for n, v in built.items() if tested.get(n, v) != v or locked.get(n, v) != v} == {}, (
        "run scripts/lock.sh"
    )
    text = (DEPLOY / "requirements.lock").read_text() + (DEPLOY / "build.lock").read_text()
    for name in {*locked, *built}:
        assert re.search(rf"^{name}==[^\n]*\\\n    --hash=sha256:", text, flags=re.MULTILINE | re.IGNORECASE), name
    assert "torch" not in locked


def test_the_image_runs_as_nobody_and_carries_no_installer() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("FROM ")[2]
    assert "USER 10001" in last
    assert "--require-hashes --only-binary :all:" in text
    removed = re.findall(r"uninstall --yes ([^\\\n]+)", text)[0].split()
    tools = {*pins(DEPLOY / "build.lock")} - {*pins(DEPLOY / "requirements.lock")}
    assert {*removed} == {"pip", "setuptools", "wheel", *tools}
    assert 0 < text.index("'*.pyc' -delete") < text.index("compileall")  # nobody can later: the root is read-only
    # What it copies and calls is there.
    assert [word for word, _ in instructions(text)].count("COPY") == 2
    for name in ("requirements.lock", "build.lock"):
        assert (DEPLOY / name).exists()
    helped = run(GUARD, "serve", "--help")
    assert "--config" in helped.stdout
