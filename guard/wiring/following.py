"""A changed guard.yaml: what may change in a running guard, and how it is swapped as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from guard.release.state import Mode, Phase, ReleaseState
from guard.rule_files import Rules
from guard.settings import Settings
from guard.wiring.data_path import apply_state
from guard.zeros import begin, rare_events
from slo.errors import ConfigError
from slo.thresholds import latency_bounds_s

if TYPE_CHECKING:
    from guard.parts import Parts


def _of_cache(name: str) -> Callable[[Any], object]:
    """A part of the cache; how it is set does not matter while there is none."""
    return lambda f: getattr(f.cache, name) if f.cache is not None and f.cache.enabled else None


_FIXED: dict[str, Callable[[Any], object]] = {
    "service": lambda f: f.service,
    "listen": lambda f: f.listen,
    "admin": lambda f: f.admin,
    "state_dir": lambda f: f.state_dir,
    "registry": lambda f: f.registry,
    "windows": lambda f: f.windows,
    "checks": lambda f: f.checks,
    "embeddings": lambda f: f.embeddings,
    "exchange_log": lambda f: f.exchange_log,
    "webhooks": lambda f: f.webhooks,
    "alertmanager": lambda f: f.alertmanager,
    "otel": lambda f: f.otel,
    "cache.enabled": lambda f: f.cache is not None and f.cache.enabled,
    "cache.store": _of_cache("store"),
    "cache.max_bytes": _of_cache("max_bytes"),
    "cache.redis": _of_cache("redis"),
    "cache.warming": _of_cache("warming"),
    "cache.semantic": _of_cache("semantic"),
    "limits.egress_networks": lambda f: f.limits.egress_networks,
}
"""What is bound at start cannot be swapped under load; better refused than half applied."""


def restart_only() -> tuple[str, ...]:
    """Parts of guard.yaml that only a restart can change."""
    return tuple(_FIXED)


async def follow(guard: Parts, settings: Settings) -> None:
    """Swap to a new configuration as a whole, or raise and change nothing.

    Raises:
        ConfigError: it cannot be used, or it changes what only a restart can change.
    """
    _refuse_restart_only(guard.settings, settings)
    rules = await asyncio.to_thread(Rules, settings, guard.clock)
    if guard.controller is not None:
        _refuse_missing_versions(guard.controller.state, settings)
    file = settings.file
    guard.exporter.set_latency_bounds(latency_bounds_s(rules.slos, rules.known()))
    guard.data_path.swap(
        routes=settings.routes,
        limits=file.limits.to_ports(),
        timeouts=file.timeouts.to_ports(),
        pricer=rules.prices,
    )
    if rules.slos != guard.rules.slos:
        guard.memory.replace_objectives(rules.slos)
        if guard.fleet is not None:
            guard.fleet.replace_objectives(rules.slos)
    guard.settings, guard.rules = settings, rules
    # Nobody asks the others any more; their series would fill the places of later ones.
    guard.exporter.keep_releases(_releases(settings))
    begin(guard.exporter, rare_events(settings, (*rules.slos, *rules.outside)))
    if guard.cache is not None:
        guard.cache.configure(settings)
    guard.judge.replace_rules(rules.slos, rules.known)
    await asyncio.to_thread(guard.outside.replace_rules, rules.outside)
    if guard.controller is not None:
        await guard.controller.configure(
            plan=rules.plan,
            mode=Mode(file.release.mode),
            every_s=file.release.evaluate_every,
            drain_unknown=file.release.unknown_action == "drain",
            max_rollbacks_per_day=file.release.max_rollbacks_per_day,
            unknown_after_s=file.release.unknown_after,
        )
        apply_state(guard, guard.controller.state)


def _releases(settings: Settings) -> set[str]:
    return {target.version.release_id for target in settings.targets.values()}


def _refuse_restart_only(old: Settings, new: Settings) -> None:
    for name, part in _FIXED.items():
        if part(old.file) != part(new.file):
            raise ConfigError(f"{new.path.name}: {name}", "changed", "restart the guard to change this part")
    # The admin listener has its token from the start: a leaked one must not go on behind a reload that went well.
    if old.admin_token != new.admin_token:
        cure = "restart the guard; until then the token that it was started with is the one that opens it"
        raise ConfigError(f"{new.path.name}: admin.token_file", "another token", cure)


def _refuse_missing_versions(state: ReleaseState, settings: Settings) -> None:
    canary = state.canary if state.phase in (Phase.ROLLING_OUT, Phase.PAUSED) else ""
    for name in filter(None, (state.stable, canary)):
        if name not in settings.targets:
            cure = f"keep it while a release uses it (release status: {state.phase.value})"
            raise ConfigError(f"{settings.path.name}: versions", name, cure)
