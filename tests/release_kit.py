"""Pieces that release tests put together: inline offload, scripted judge, recording sender, a small registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.release.controller import Controller
from guard.release.evaluation import Judgement
from guard.release.facts import Facts
from guard.release.incident import Exemplar
from guard.release.journal import Journal
from guard.release.outbox import Outbox
from guard.release.plan import Plan, Stage
from guard.release.pointer import ReleaseRegistry
from guard.release.records import OutboxItem
from guard.release.report import Hooks, alert_line
from guard.release.state import Mode, ReleaseState
from guard.release.webhook import Delivery, Sent
from registry.client import LocalRegistry, RegistryPort
from registry.errors import RegistryUnreachable
from registry.store import RegistryStore
from slo.clock import Clock, LoopClock
from slo.errors import SourceError
from slo.types import Action, ActionKind, OnBreach, Reading, Slo, State, Threshold, Verdict, Version, Window

SERVICE = "faq-bot"
_COMPILED: dict[Any, Any] = {}
"""Statements compiled once for all worlds of a process and its forks: compiling took a third of a short life."""
GOOD = Version("v1.2.0", model="m1", kb="600/100")
BAD = Version("v1.2.1", model="m1", kb="350/50")
NEXT = Version("v1.3.0", model="m1", kb="700/100")
VERSIONS = {v.name: v for v in (GOOD, BAD, NEXT)}
PLAN = Plan((Stage(0.1, 60.0, 10), Stage(0.5, 60.0, 10)))
DETAILS = {
    "v1.2.0": {"kb.chunking": "600/100", "kb.mean_length": "450"},
    "v1.2.1": {"kb.chunking": "350/50", "kb.mean_length": "280", "kb.empty_ratio": "0.15"},
}

SLO = Slo(
    "hallucination",
    "sft_quality_hallucination_rate",
    Window(3600.0),
    Threshold("baseline", {"quantile": "p95", "factor": 1.5}),
    action=OnBreach.ROLLBACK,
)
BREACH = Verdict(
    SLO,
    BAD.release_id,
    State.BREACH,
    0.08,
    0.045,
    "8 % of 500 answers unsupported, limit 4.5 %",
    bound=0.062,
    reading=Reading(40, 500),
    firing=True,
    evidence=(("baseline_hash", "ab" * 32),),
)
ROLL_BACK = Action(ActionKind.ROLL_BACK, "breach: hallucination 8 % over 4.5 %", (BREACH,))
PASS = Action(ActionKind.ADVANCE, "pass: 1 objectives ok")
HOLD = Action(ActionKind.HOLD, "waiting: inconclusive")
BLIND = SourceError("prometheus: no answer")


async def inline(call: Callable[[], Any]) -> Any:
    """Run what would go to a thread here and now: no real time passes beside the virtual clock."""
    return call()


class ScriptedJudge:
    """Says one thing after another; the last one forever."""

    def __init__(self, *script: Action | Exception) -> None:
        self.script = list(script)

    def judge(self, state: ReleaseState) -> Judgement:
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            raise said
        return said, said.verdicts


class Receiver:
    """A sender that records, and fails as told: a `Delivery` per try, then delivered."""

    def __init__(self, name: str = "pager", *script: Delivery, forever: Delivery | None = None) -> None:
        self.identity = f"{name} 0123456789abcdef"
        self.script, self.forever = list(script), forever
        self.got: list[OutboxItem] = []
        self.tried: list[tuple[float, str]] = []
        self.clock: Clock = LoopClock()

    async def send(self, item: OutboxItem) -> Sent:
        self.tried.append((self.clock.now_s(), item.message_id))
        result = self.script.pop(0) if self.script else self.forever or Delivery.DELIVERED
        if result is Delivery.DELIVERED:
            self.got.append(item)
        return Sent(result, "" if result is Delivery.DELIVERED else f"said {result}")


class FlakyPort(LocalRegistry):
    """The registry, with faults: refuse calls, or carry them out and lose the answer."""

    def __init__(self, store: RegistryStore) -> None:
        super().__init__(store, inline)
        self.down = False
        self.lose_answers = 0

    async def _offload_call(self, call: Callable[[], Any]) -> Any:
        if self.down:
            raise RegistryUnreachable("registry: refused; is it up?")
        answer = call()
        if self.lose_answers > 0:
            self.lose_answers -= 1
            raise RegistryUnreachable("registry: the answer was lost")
        return answer


@dataclass
class World:
    """One sidecar with everything around it, in one directory."""

    directory: Path
    judge: Any
    receivers: dict[str, Receiver] = field(default_factory=lambda: {"pager": Receiver()})
    mode: Mode = Mode.ENFORCE
    at: Callable[[str], None] = lambda _point: None
    versions: dict[str, Version] = field(default_factory=lambda: dict(VERSIONS))
    port: RegistryPort | None = None
    clock: Clock = field(default_factory=LoopClock)
    drain_unknown: bool = False
    use_registry: bool = True

    def __post_init__(self) -> None:
        self.applied: list[ReleaseState] = []
        self.alerts: list[str] = []
        self.alert_lines: list[str] = []
        self.pages: list[str] = []
        self.recommended: list[str] = []
        self.deliveries: list[str] = []
        self.rollbacks: list[tuple[str, bool]] = []
        self.faults: list[str] = []
        self.lives: list[str] = []
        self.events = 0
        self.store = RegistryStore(f"sqlite:///{self.directory}/registry.db")
        self.store.database.engine = self.store.database.engine.execution_options(compiled_cache=_COMPILED)
        self.port = self.port or FlakyPort(self.store)
        if isinstance(self.port, FlakyPort):
            self.port._offload = self.port._offload_call
        self.journal = Journal(self.directory / "state", self.faults.append)
        self.outbox = Outbox(
            self.journal,
            self.receivers,
            self.clock,
            on_delivery=self.deliveries.append,
            on_page=lambda reason, _item: self.pages.append(reason),
            offload=inline,
        )
        for receiver in self.receivers.values():
            receiver.clock = self.clock
        self.controller = Controller(
            self.journal,
            ReleaseRegistry(self.port, SERVICE) if self.use_registry else None,
            self.judge,
            self.applied.append,
            self.outbox,
            self.clock,
            service=SERVICE,
            stable=GOOD.name,
            facts=Facts(
                self.versions,
                details=lambda name: DETAILS.get(name, {}),
                exemplars=lambda _name: (Exemplar("ex-1", "0af7651916cd43dd8448eb211c80319c"),),
                event_count=lambda _name: self.events,
            ),
            plan=PLAN,
            mode=self.mode,
            drain_unknown=self.drain_unknown,
            hooks=Hooks(
                on_rollback=lambda rule, automatic: self.rollbacks.append((rule, automatic)),
                on_alert=self._alerted,
                on_recommendation=self.recommended.append,
                on_new_life=lambda canary, _life: self.lives.append(canary),
            ),
            offload=inline,
            at=self.at,
        )

    def _alerted(self, word: str, text: str) -> None:
        self.alerts.append(str(word))
        self.alert_lines.append(alert_line(word, text))

    async def up(self) -> World:
        self.controller.restore()
        await self.controller.recover()
        return self

    def close(self) -> None:
        self.journal.close()
        self.store.close()

    def weights(self) -> list[float]:
        """Canary weights as they were applied, repeats left out."""
        seen: list[float] = []
        for state in self.applied:
            if not seen or seen[-1] != state.canary_ratio:
                seen.append(state.canary_ratio)
        return seen

    def pointer_moves(self) -> list[tuple[str, str, str]]:
        return [
            (e.version, e.from_value, e.to_value)
            for e in reversed(self.store.audit(1000, SERVICE))
            if e.action == "rollback"
        ]

    def stages(self) -> dict[str, str]:
        return {v.version: v.stage.value for v in self.store.versions(SERVICE)}


def ids(items: Iterable[OutboxItem]) -> set[str]:
    return {item.message_id for item in items}
