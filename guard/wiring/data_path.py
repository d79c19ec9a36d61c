"""The listener that bots talk to, and how a release state becomes the split of the next request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from guard.feedback import PATH as FEEDBACK_PATH
from guard.feedback import feedback_handler
from guard.proxy import DataPath
from guard.sinks import PathSink
from guard.tracing import onward_of
from guard.wiring.checks import screen_of
from guard.zeros import begin, of_users

if TYPE_CHECKING:
    from guard.parts import Parts
    from guard.release.state import ReleaseState

log = logging.getLogger("sft-guard")

SHED_RATIO = 0.25
"""Share of the traffic refused while a rule asks to shed and there is no canary; the lowest priority first."""


def data_path_of(guard: Parts, thumb: Callable[[str, bool], None], flag: Callable[[str], None]) -> DataPath:
    """The data path of this guard: its split, fan-out, pipeline and cache are there already.

    thumb: told (release, up) of what a user thought. flag: told the id of an answer that a thumb points down at.
    """
    settings = guard.settings
    feedback = feedback_handler(
        guard.recent,
        thumb,
        flag,
        label=guard.labels.label,
        token=lambda: guard.settings.admin_token,  # also after a reload
    )
    return DataPath(
        settings.routes,
        guard.split,
        PathSink(guard.fanout, guard.pipeline),
        guard.rules.prices,
        settings.file.limits.to_ports(),
        settings.file.timeouts.to_ports(),
        clock=guard.clock,
        allow_networks=settings.file.limits.egress_networks,
        trace=onward_of(settings),
        own_posts={FEEDBACK_PATH: feedback},
        cache=guard.cache.answers if guard.cache is not None else None,
        screen=screen_of(settings, guard.exporter, guard.clock),
    )


def apply_state(guard: Parts, state: ReleaseState) -> None:
    """Make a release state effective for the next request. Never fails, never waits."""
    targets, release = guard.settings.targets, guard.settings.file.release
    stable = targets.get(state.stable)
    if stable is None:
        log.error("version %s is stable and not in guard.yaml; %s answers", state.stable, release.stable)
        stable = targets[release.stable]
    canary = targets.get(state.canary) if state.in_traffic else None
    ratio = state.canary_ratio if canary is not None else 0.0
    guard.split.set(stable, canary, ratio, state.cache_epoch, f"{release.salt}{state.canary}")
    guard.outside.in_traffic(stable.version.release_id, canary.version.release_id if canary is not None else "")
    guard.data_path.shed_ratio = SHED_RATIO if state.shedding else 0.0
    for target in filter(None, (stable, canary)):
        begin(guard.exporter, of_users(guard.settings, target.version.release_id))
    if guard.kept_care is not None:
        guard.kept_care.care.released()
