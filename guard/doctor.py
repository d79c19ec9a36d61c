"""`sft-guard doctor`: tries what the configuration names and says what to do about each fault."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from guard import compiled
from guard.checked_names import checked_connector
from guard.examine_files import examine_files
from guard.examine_tiers import examine_tiers
from guard.fleet_windows import examine_prometheus
from guard.limits import Egress
from guard.ports import Endpoint
from guard.private_state import OTHERS
from guard.safety.injection import ready_models
from guard.settings import Settings, split_host_port
from guard.settings.safety import safety_spec
from slo.clock import SystemClock
from slo.dialling import Permits, dial
from slo.errors import ConfigError, GuardError
from slo.pricing import PriceTable
from slo.spec import load_slo_file

LOW_DISK_BYTES = 512 * 2**20
CLOCK_TOLERANCE_S = 5.0
REACHED_S = 3.0
EARLIEST_SANE_WALL_S = 1_735_689_600.0  # 2025-01-01: a clock before that was never set


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """state: ok | warn | fault. cure: what to do, empty when ok."""

    state: str
    subject: str
    text: str
    cure: str = ""


def examine(settings: Settings, *, token_present: bool, missing: Mapping[str, str] | None = None) -> list[Diagnosis]:
    """All findings, in the order in which a person would look.

    missing: variable -> place of secrets that have stand-ins (see `load_without_secrets`); what needs one is not tried.
    """
    unset = missing or {}
    findings = [Diagnosis("ok", "guard.yaml", f"{settings.path} (hash {settings.config_hash})")]
    findings += [
        Diagnosis(
            "fault",
            "environment",
            f"{name} is not set in this shell ({place}): `serve` would not start from it",
            "export it to try what needs it; a guard that runs already has its own",
        )
        for name, place in unset.items()
    ]
    findings += _slo(settings)
    findings += _prices(settings)
    findings += _baseline(settings)
    findings += _ports(settings)
    findings += _state(settings)
    if settings.file.admin.token_env not in unset:
        findings += _admin(settings, token_present)
    findings += _clock()
    findings.append(Diagnosis("ok", "data path", compiled.state()[1]))
    findings += _embedder(settings)
    findings += _safety(settings)
    findings += _semantic_cache(settings)
    findings += [Diagnosis(*found) for found in examine_tiers(settings)]
    findings += [Diagnosis(*found) for found in examine_files(settings)]
    findings += asyncio.run(_network(settings, unset))
    return findings


def _slo(settings: Settings) -> Iterator[Diagnosis]:
    if settings.file.slo is None:
        yield Diagnosis("warn", "slo", "no objectives: the guard measures and never judges", "name a file under `slo:`")
        return
    path = settings.resolve(settings.file.slo)
    try:
        slo_file = load_slo_file(path)
    except GuardError as error:
        yield Diagnosis("fault", "slo", str(error), f"mend it, then `sft-guard check {path}`")
        return
    yield Diagnosis("ok", "slo", f"{len(slo_file.objectives)} objectives in {path}")


def _prices(settings: Settings) -> Iterator[Diagnosis]:
    path = settings.resolve(settings.file.prices) if settings.file.prices else None
    try:
        table = PriceTable.load(path)
    except GuardError as error:
        yield Diagnosis("fault", "prices", str(error), "mend the price table")
        return
    unknown = sorted(
        {v.model for v in settings.file.versions.values() if v.model and table.cost_usd(v.model, 1, 1) is None}
    )
    if unknown:
        yield Diagnosis(
            "warn",
            "prices",
            f"no price for {', '.join(unknown)}: their cost is unknown, not 0",
            "add them under `prices:`",
        )
    else:
        yield Diagnosis("ok", "prices", f"as of {table.as_of}")


def _baseline(settings: Settings) -> Iterator[Diagnosis]:
    if settings.file.baseline is None:
        yield Diagnosis("warn", "baseline", "none: rules of the form baseline x factor are unknown",
                        "after a week: sft-guard baseline collect --log ... --out baseline.json")  # fmt: skip
        return
    from slo.baselines import load_baseline

    path = settings.resolve(settings.file.baseline)
    try:
        baseline = load_baseline(path)
    except GuardError as error:
        yield Diagnosis("fault", "baseline", str(error), "collect it again")
        return
    if baseline.expires_wall_s < SystemClock().wall_s():
        yield Diagnosis("fault", "baseline", f"{path} has expired", "collect it again from recent traffic")
    else:
        yield Diagnosis("ok", "baseline", f"{path}, {baseline.exchange_count} exchanges, hash {baseline.sha256[:12]}")


def _ports(settings: Settings) -> Iterator[Diagnosis]:
    for name, address in (("data port", settings.file.listen.data), ("admin port", settings.file.listen.admin)):
        host, port = split_host_port(address)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            yield Diagnosis(
                "warn",
                name,
                f"{address}: {error.strerror or error}",
                "fine if the guard itself is running there; else choose another under `listen:`",
            )
        else:
            yield Diagnosis("ok", name, f"{address} is free")


def _state(settings: Settings) -> Iterator[Diagnosis]:
    directory = settings.state_dir
    existing = next(p for p in (directory, *directory.absolute().parents) if p.exists() or p.is_symlink())
    place = f"{settings.path.name}: state_dir: {directory}"
    if not existing.is_dir():
        what = "a link that leads nowhere" if existing.is_symlink() else "a file, not a directory"
        made = "" if existing == directory else f"cannot be created: {existing} "
        yield Diagnosis("fault", "state_dir", f"{place} {made}is {what}", "choose another state_dir")
        return
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".doctor-", dir=existing))
    except OSError as error:
        verb = "cannot be written" if existing == directory else f"cannot be created in {existing}"
        cure = f"let {_user()} write {existing} (chown, chmod), or choose another state_dir"
        yield Diagnosis("fault", "state_dir", f"{place} {verb}: {error.strerror or error}", cure)
        return
    if directory.exists() and stat.S_IMODE(directory.stat().st_mode) & OTHERS:
        yield Diagnosis(
            "warn", "state_dir", f"{directory} is open to other users", "the next start of the guard closes it"
        )
    free = shutil.disk_usage(existing).free
    if free < LOW_DISK_BYTES:
        yield Diagnosis(
            "fault",
            "state_dir",
            f"{free // 2**20} MiB free on the disk of {directory}",
            "free some space; rollbacks work on a full disk, the exchange log does not",
        )
    else:
        yield Diagnosis("ok", "state_dir", f"{directory}, {free // 2**30} GiB free")
    for database in sorted(directory.glob("*.sqlite*")) if directory.exists() else []:
        if database.suffix in (".sqlite", ".sqlite3"):
            yield _database(database)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _database(path: Path) -> Diagnosis:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            result = connection.execute("PRAGMA quick_check").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        return Diagnosis(
            "fault",
            path.name,
            str(error),
            "move it aside (do not delete it) and start again; releases return to `stable`",
        )
    if result != "ok":
        return Diagnosis(
            "fault", path.name, result, "move it aside (do not delete it) and start again; releases return to `stable`"
        )
    return Diagnosis("ok", path.name, "integrity ok")


def _admin(settings: Settings, token_present: bool) -> Iterator[Diagnosis]:
    admin = settings.file.admin
    if settings.admin_token is None:
        hint = "SFT_GUARD_TOKEN is set but `admin:` does not name it" if token_present else "no token"
        yield Diagnosis(
            "warn",
            "admin token",
            f"{hint}: releases cannot be started or stopped by API",
            "admin: {token_env: SFT_GUARD_TOKEN}",
        )
    elif admin.token_file is not None and (cure := _token_cure(settings.resolve(admin.token_file).stat(), os.getuid())):
        yield Diagnosis("fault", "admin token", f"{admin.token_file} can be read by others", cure % admin.token_file)
    else:
        yield Diagnosis("ok", "admin token", "set")
    host, _ = split_host_port(settings.file.listen.admin)
    if host not in ("127.0.0.1", "localhost", "::1"):
        yield Diagnosis(
            "warn",
            "admin listener",
            f"reachable beyond this machine ({host})",
            "put it behind a network policy, or listen on 127.0.0.1",
        )


def _token_cure(found: os.stat_result, user_id: int) -> str:
    """What to do about the rights of a token file, "" when they are right.

    One of somebody else is of use only if our group may read it: a secret of Kubernetes is root's, 0440.
    """
    ours = found.st_uid == user_id
    if not stat.S_IMODE(found.st_mode) & (0o077 if ours else 0o007):
        return ""
    return "chmod 600 %s" if ours else "let its owner run: chmod o= %s"


def _clock() -> Iterator[Diagnosis]:
    wall_s = SystemClock().wall_s()
    if wall_s < EARLIEST_SANE_WALL_S:
        yield Diagnosis(
            "fault",
            "clock",
            f"wall time {wall_s:.0f} is before 2025",
            "set the clock; signatures and log names need it",
        )
    else:
        yield Diagnosis("ok", "clock", "wall clock is plausible; windows use the monotonic one")


def _embedder(settings: Settings) -> Iterator[Diagnosis]:
    if not settings.file.checks.enabled:
        yield Diagnosis("warn", "checks", "switched off: quality indicators stay unknown", "checks: {enabled: true}")
        return
    from guard.embedder_report import embedder_findings  # reads models: only here, only in this process

    for state, subject, text, cure in embedder_findings(settings):
        yield Diagnosis(state, subject, text, cure)


def _safety(settings: Settings) -> Iterator[Diagnosis]:
    """Which questions are refused, and whether the detector can look."""
    if not settings.file.checks.enabled:
        return
    try:
        spec = safety_spec(settings)
        made_on = ready_models().made_on
    except ConfigError as error:
        yield Diagnosis("fault", "safety", f"{error.place}: {error.value}", error.cure)
        return
    except GuardError as error:
        yield Diagnosis("fault", "safety", str(error), "install the program again")
        return
    places = {"injection": spec.injection_question, "pii": spec.pii_question, "toxicity": spec.toxicity_question}
    refused = [f"{name} (at {spec.question_rate})" if name == "injection" else name for name in places
               if places[name] == "enforce"]  # fmt: skip
    said = f"refuses questions with {', '.join(refused)}" if refused else "reports, refuses no question"
    yield Diagnosis("ok", "safety", f"{said}; injection models of {made_on}")


def _semantic_cache(settings: Settings) -> Iterator[Diagnosis]:
    cache = settings.file.cache
    if cache is None or not cache.enabled or cache.semantic is None:
        return
    from rag.embedding import embedder_status

    ok, text = embedder_status(cache.semantic.embedder)
    chinese = "Chinese: near-identical wording; other languages: refused"
    if ok:
        yield Diagnosis("ok", "semantic cache", f"English: {text}; {chinese}")
    else:
        cure = "pip install 'sft-guard[embeddings]'; until then only Chinese questions have neighbours"
        yield Diagnosis("warn", "semantic cache", f"English: refused ({text}); {chinese}", cure)


async def _network(settings: Settings, unset: Mapping[str, str]) -> list[Diagnosis]:
    findings: list[Diagnosis] = []
    timeout = aiohttp.ClientTimeout(total=settings.file.timeouts.connect + 2)
    egress = Egress(settings.file.limits.egress_networks)
    connector = checked_connector(egress)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        for name, target in settings.targets.items():
            for endpoint in target.endpoints:
                findings += await _endpoint(session, f"upstream {name}", endpoint)
        if settings.file.registry.url:
            findings += await _url(session, "registry", settings.file.registry.url.rstrip("/") + "/healthz")
        if settings.file.windows.source == "prometheus" and settings.file.windows.token_env not in unset:
            state, text, cure = await examine_prometheus(settings)
            findings.append(Diagnosis(state, "windows", text, cure))
        if settings.file.alertmanager:
            findings += await _url(session, "alertmanager", settings.file.alertmanager.url.rstrip("/") + "/-/healthy")
        if settings.file.otel:
            checked = settings.file.otel.protocol == "http"  # gRPC looks names up itself
            findings.append(await _reachable("otel", settings.file.otel.endpoint, egress.permits if checked else None))
        redis = settings.file.cache.redis if settings.file.cache and settings.file.cache.enabled else None
        if redis and redis.password_env not in unset:
            from guard.cache.examine import examine_redis

            findings += [Diagnosis(*found) for found in await examine_redis(settings)]
        if settings.file.checks.enabled and settings.file.checks.judge:
            findings.append(await _reachable("judge", settings.file.checks.judge.url, egress.permits))
        for webhook in settings.file.webhooks:
            if webhook.url_env in unset:
                continue
            url = settings.webhook_urls[webhook.name]
            findings.append(await _reachable(f"webhook {webhook.name}", url, egress.permits))
    return findings


async def _endpoint(session: aiohttp.ClientSession, subject: str, endpoint: Endpoint) -> list[Diagnosis]:
    url = f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}{endpoint.base_path}/v1/models"
    return await _url(session, subject, url, any_status=True)


async def _url(session: aiohttp.ClientSession, subject: str, url: str, *, any_status: bool = False) -> list[Diagnosis]:
    try:
        async with session.get(url, allow_redirects=False) as response:
            await response.content.read(65536)
            status, date = response.status, response.headers.get("date")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # aiohttp's own text of a refused connection names addresses, classes and TLS, and not what happened.
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        number = (cause.errno or 0) if isinstance(cause, OSError) else 0
        text = os.strerror(number) if number > 0 else str(error)
        return [
            Diagnosis("fault", subject, f"{url}: {text or type(error).__name__}", "start it, or correct the address")
        ]
    findings = []
    if any_status or status < 400:
        findings.append(Diagnosis("ok", subject, f"{url} answers {status}"))
    else:
        findings.append(Diagnosis("fault", subject, f"{url} answers {status}", "look at its log"))
    if date and (skew_s := _skew_s(date)) is not None and abs(skew_s) > CLOCK_TOLERANCE_S:
        findings.append(
            Diagnosis(
                "warn",
                f"clock of {subject}",
                f"{skew_s:+.0f} s away from ours",
                "synchronise clocks: webhook signatures allow 5 minutes",
            )
        )
    return findings


def _skew_s(http_date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(http_date).timestamp() - SystemClock().wall_s()
    except (TypeError, ValueError):
        return None


async def _reachable(subject: str, url: str, permits: Permits | None) -> Diagnosis:
    """Only connect: a receiver must not be sent a made-up event. A path may be a secret: only the origin is shown."""
    from guard.settings import parse_origin

    origin = parse_origin(url)
    try:
        dialled = asyncio.to_thread(dial, origin.host, origin.port, REACHED_S, permits)
        (await asyncio.wait_for(dialled, REACHED_S + 2.0)).close()
    except OSError as error:
        return Diagnosis(
            "fault",
            subject,
            f"{origin.host}:{origin.port}: {str(error) or type(error).__name__}",
            "start the receiver, or correct the address",
        )
    return Diagnosis("ok", subject, f"{origin.host}:{origin.port} accepts connections")
