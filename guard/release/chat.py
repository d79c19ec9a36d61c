"""The same message for people in a chat: the JSON that Slack's incoming webhooks take, and many others understand.

A chat does not verify signatures; its address is its secret. What is sent is made from the stored body at the moment of
sending, so one message in the outbox serves every kind of receiver.

Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from guard.release.records import OutboxItem
from guard.release.webhook import TIMEOUT_S, Delivery, Sent, judge_status
from slo.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

TEXT_CHARS = 2900  # a section of Slack holds 3,000
_TITLES = {
    "release.rolled_back": ":rewind: rolled back",
    "release.no_target": ":no_entry: taken out of traffic, nothing to return to",
    "release.shared_upstream": ":warning: stable and canary suffer together",
    "release.page": ":rotating_light: a rule wants a person",
    "release.condition": ":warning: the guard cannot do its work",
    "release.drill": ":test_tube: drill",
    "release.rollback_superseded": ":leftwards_arrow_with_hook: rollback superseded by a later decision",
}


def chat_message(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return Slack's JSON for a message of ours: a line for notifications, and blocks with evidence and differences.

    All text from outside is escaped as Slack asks for: it can name nobody and link nowhere.
    """
    data = document["data"]
    title = _TITLES.get(str(document["type"]), str(document["type"]))
    bad, target = data["bad"]["name"], data["target"]["name"]
    line = f"{title}: {_safe(data['service'])} {_safe(bad)} -> {_safe(target)} ({_safe(data['rule'])})"
    blocks = [_section(f"*{line}*\n{_safe(data['reason'])}")]
    evidence = [
        f"- `{_code(e['rule'])}` {_number(e['estimate'])} against {_number(e['threshold'])}, "
        f"{e['bad_count']} of {e['n']} in {e['window_s']:g} s"
        for e in data["evidence"][:5]
    ]
    if evidence:
        blocks.append(_section("\n".join(["*Evidence*", *evidence])))
    changed = [
        f"- {_safe(d['part'])}: `{_code(d['before'])}` -> `{_code(d['after'])}`" for d in data["differences"][:10]
    ]
    if changed:
        blocks.append(_section("\n".join(["*What changed*", *changed])))
    command = f"`sft-guard incident show {_code(data['incident_id'])}`"
    blocks.append(_section(f"incident {command}"))
    return {"text": line[:TEXT_CHARS], "blocks": blocks}


class ChatSender:
    """POSTs to one chat. Implements the sender that the outbox asks for."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
            raise ConfigError(f"webhooks.{name}.url", "...", "write http(s)://host[:port]/path, without a user name")
        self._name, self._url, self._session = name, url, session
        import aiohttp  # only where something is posted: 9 MB

        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._failures = (aiohttp.ClientError, OSError, ValueError)

    @property
    def identity(self) -> str:
        return f"{self._name} {sha256(self._url.encode()).hexdigest()[:16]}"

    async def send(self, item: OutboxItem) -> Sent:
        body = msgspec.json.encode(chat_message(msgspec.json.decode(item.body)))
        headers = {"content-type": "application/json", "user-agent": "sft-guard"}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                return judge_status(response.status)
        except TimeoutError:
            return Sent(Delivery.TIMEOUT, f"no answer within {self._timeout.total:g} s")
        except self._failures as error:
            return Sent(Delivery.CONNECT_ERROR, type(error).__name__)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:TEXT_CHARS]}}


def _safe(text: object) -> str:
    """Slack's three characters escaped; what marks text up loses its meaning beside a zero-width space."""
    words = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\u200b{char}" if char in "*_~`" else char for char in words)


def _code(text: object) -> str:
    words = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return words.replace("`", "'").replace("\n", " ")[:200]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
