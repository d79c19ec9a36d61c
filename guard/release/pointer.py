"""The registry as a release needs it: one control document, one Production pointer. Translates its errors.

The registry has an error tree of its own; above this border only `slo.errors` exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import Control, Stage
from registry.port import RegistryPort
from slo.errors import RefusedError, UpstreamError
from slo.types import Version

_MISSING = frozenset({"unknown_model", "unknown_version", "no_target", "archived"})


@contextmanager
def translated() -> Iterator[None]:
    """Raise RefusedError and UpstreamError for what the registry says; also for commands that use it directly."""
    try:
        yield
    except RegistryRefused as error:
        raise RefusedError(error.reason, str(error)) from error
    except RegistryUnreachable as error:
        raise UpstreamError(str(error)) from error


class ReleaseRegistry:
    """Control document and pointer of one service. `model` is what its releases are registered under."""

    def __init__(self, port: RegistryPort, service: str, *, model: str = "", actor: str = "guard") -> None:
        self._port, self.service, self._model, self._actor = port, service, model or service, actor

    def for_service(self, service: str) -> ReleaseRegistry:
        """The same registry, another service with its own document and model."""
        return ReleaseRegistry(self._port, service, actor=self._actor)

    async def control(self) -> Control | None:
        """Raises UpstreamError."""
        with translated():
            return await self._port.control(self.service)

    async def commit(self, control: Control, expected_epoch: int, actor: str = "") -> None:
        """Replace the document. Raises RefusedError `conflict` for the loser, UpstreamError."""
        with translated():
            await self._port.put_control(control, expected_epoch=expected_epoch, actor=actor or self._actor)

    async def ensure(self, version: Version, stage: Stage, actor: str = "") -> None:
        """Register the release if nobody did, and bring it to `stage` if that is a step forward from where it is.

        Production is taken only while nobody has it: a pointer that somebody set is not ours to move here.
        """
        actor = actor or self._actor
        # Once in the life of a version: the same request arriving again, late, must not take back what came after.
        once = f"ensure/{self.service}/{version.name}"  # no name holds a slash
        with translated():
            await self._create_model()
            known = {v.version: v.stage for v in await self._port.versions(self._model)}
            if version.name not in known:
                meta = {
                    "artifact_type": "Release",
                    "release": version.release_id,
                    "model": version.model,
                    "adapter": version.adapter,
                    "kb": version.kb,
                    "prompt": version.prompt,
                    "policy": version.policy,
                }
                await self._port.create_version(self._model, version.name, meta=meta, tags=("release",), actor=actor)
            if known.get(version.name, Stage.NONE) is Stage.NONE:
                await self._port.transition(self._model, version.name, Stage.STAGING, actor=actor, key=f"{once}/staged")
            if stage is Stage.PRODUCTION and Stage.PRODUCTION not in known.values():
                await self._port.transition(
                    self._model, version.name, Stage.PRODUCTION, actor=actor, key=f"{once}/first"
                )

    async def promote(self, version: str, *, epoch: int, actor: str) -> None:
        """Point to `version`, fenced by epoch and safe to repeat. Raises RefusedError, UpstreamError."""
        with translated():
            await self._port.transition(
                self._model, version, Stage.PRODUCTION, actor=actor, epoch=epoch, key=f"promote-{self.service}-{epoch}"
            )

    async def production(self) -> str | None:
        """Name of the version in Production. Raises RefusedError, UpstreamError."""
        with translated():
            version = await self._port.production(self._model)
            return version.version if version else None

    async def move_back(self, bad: str, target: str, *, epoch: int, key: str, actor: str, detail: str) -> str:
        """Point to `target` instead of `bad`, fenced by epoch and safe to repeat by `key`.

        Returns `at_target`, `no_target` (missing, archived or never staged: nothing was moved), `elsewhere` (somebody
        points to a third version, which is theirs to undo) or `superseded` (the control document has a later epoch).

        Raises:
            UpstreamError: nobody knows; repeat.
        """
        try:
            with translated():
                await self._port.transition(
                    self._model,
                    bad,
                    Stage.STAGING,
                    actor=actor,
                    rollback_to=target,
                    epoch=epoch,
                    key=key,
                    detail=detail,
                    force=True,  # a failed gate must not keep users on what is bad now; the audit says it was passed
                )
        except RefusedError as error:
            if error.reason not in _MISSING:
                now = await self.control()
                if now is not None and now.epoch > epoch:
                    return "superseded"
                with translated():
                    holder = await self._port.production(self._model)
                where = holder.version if holder else None
                if error.reason == "conflict" and where in (None, bad):
                    raise UpstreamError("registry: lost a race for the pointer; it is tried again") from error
                return "at_target" if where == target else "elsewhere"
            # The bad version itself may be unknown or archived there; what counts is where the pointer is.
            return "at_target" if await self._points_to(target) else "no_target"
        return "at_target"

    async def close(self) -> None:
        """Give connections back."""
        await self._port.close()

    async def _points_to(self, target: str) -> bool:
        try:
            return await self.production() == target
        except RefusedError:
            return False

    async def _create_model(self) -> None:
        try:
            await self._port.create_model(self._model, "sft-guard", "releases of this service")
        except RegistryRefused as error:
            if error.reason != "exists":  # registered by somebody else, which is just as well
                raise
