"""From settings to a runner of probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from guard.cache.quiet import QuietPath
from guard.ports import Assignment
from guard.probing.asking import request_of
from guard.probing.probes_file import load_probes
from guard.probing.runner import PREFIX, ProbePlan, ProbeRunner
from guard.settings import Settings
from slo.errors import ConfigError

if TYPE_CHECKING:
    from guard.parts import Parts


def probe_plan(settings: Settings) -> ProbePlan | None:
    """What is to be asked; None without `checks.probes`.

    Raises:
        ConfigError: the file is wrong, or the route cannot be asked.
    """
    probes = settings.file.checks.probes
    if probes is None:
        return None
    place = f"{settings.path.name}: checks.probes.route"
    route = next((r for r in settings.routes if r.name == probes.route), None)
    if route is None:
        raise ConfigError(place, probes.route, f"name one of the routes: {', '.join(r.name for r in settings.routes)}")
    try:
        request_of(route, "?", "")
    except ValueError as error:
        raise ConfigError(place, probes.route, str(error)) from error
    for name in probes.before_traffic:
        if name not in settings.targets:
            place = f"{settings.path.name}: checks.probes.before_traffic"
            raise ConfigError(place, name, f"name one of the versions: {', '.join(settings.targets)}")
    file = settings.resolve(probes.file)
    return ProbePlan(load_probes(file), route, probes.every, probes.per_hour, probes.k, probes.model)


def probe_runner(guard: Parts) -> ProbeRunner | None:
    """The runner of this guard; None without probes."""
    plan = probe_plan(guard.settings)
    if plan is None:
        return None
    offer = guard.pipeline.offer if guard.pipeline is not None else None
    quiet = QuietPath(guard.data_path, prefix=PREFIX.encode())
    return ProbeRunner(plan, quiet, offer, _arms(guard), guard.exporter.inc, guard.clock)


def _arms(guard: Parts) -> Callable[[], Sequence[Assignment]]:
    def arms() -> Sequence[Assignment]:
        in_traffic = guard.split.in_traffic()
        asked = {a.target.version.release_id for a in in_traffic}
        probes = guard.settings.file.checks.probes
        names = probes.before_traffic if probes is not None else ()
        early = [guard.settings.targets[n] for n in names if n in guard.settings.targets]
        more = [Assignment("canary", t, in_traffic[0].cache_epoch) for t in early if t.version.release_id not in asked]
        return (*in_traffic, *more)

    return arms
