"""Faults of the process itself, on a real `sft-guard serve`: SIGTERM with streams, a full stderr, a stopped process,
and what of the words and keys that went through it is found anywhere afterwards."""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
from pathlib import Path

import pytest

from slo.sources.exchange_log import LogReader
from tests.faults.path_kit import chat, post
from tests.faults.rig import Bare, Rig, Served, environment, taken_apart, until
from tests.faults.scripted_upstream import Script, Seen, Upstream, chat_stream, chunked, completion, http

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
WORDS = [f"word{number} " for number in range(20)]


async def test_sigterm_lets_streams_end_and_tells_the_rest(tmp_path: Path):
    """200 streams: those that end within the drain budget are whole, the others get an error frame; none is cut."""
    response = chunked(chat_stream(WORDS), size=80)

    def answer(seen: Seen) -> Script:
        lasting = seen.header(b"x-lasts") == b"long"
        return Script(response, drip_bytes=150, pause_s=60.0 if lasting else 0.05)

    async def stream(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.data_port)
        writer.write(post(chat(stream=True), f"x-lasts: {'long' if number % 4 == 0 else 'short'}"))
        first = await reader.readuntil(b"\r\n\r\n")
        begun[number].set()
        rest = await reader.read(-1)
        writer.transport.abort()
        return first + rest

    async with Upstream(answer) as upstream, Bare(tmp_path).before(upstream.port, drain_s=3.0) as guard:
        begun = [asyncio.Event() for _ in range(200)]
        streams = [asyncio.create_task(stream(number)) for number in range(200)]
        for event in begun:
            await asyncio.wait_for(event.wait(), 30)
        guard.process.send_signal(signal.SIGTERM)
        raw = await asyncio.wait_for(asyncio.gather(*streams), 60)
        async with asyncio.timeout(60):
            assert await guard.process.wait() == 0
    kinds = []
    for one in raw:
        body = taken_apart(one).body
        whole, told = b"[DONE]" in body, b"draining" in body
        assert whole != told, body[-300:]
        kinds.append("whole" if whole else "told")
    assert kinds[::4] == ["told"] * 50
    assert kinds.count("whole") == 150


def fill(pipe: int) -> None:
    """Until it takes no more; it must not block yet."""
    try:
        while True:
            os.write(pipe, b"." * 512)
    except BlockingIOError:
        pass


async def test_a_stderr_that_nobody_reads_stops_no_answer(tmp_path: Path):
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writing, False)
        fill(writing)
        os.set_blocking(writing, True)
        async with Bare(tmp_path, stderr=writing).before(upstream.port) as guard:
            for _ in range(30):  # each of them is a line of the log
                refused = await guard.request(guard.admin_port, "GET", "/healthz", headers="Origin: http://x.test\r\n")
                assert refused.status == 403, refused
                answer = taken_apart(await asked(guard))
                assert (answer.status, answer.error) == (200, "")
            assert await asyncio.wait_for(guard.end(), 30) == 0
        os.close(reading)
        os.close(writing)


async def asked(guard: Rig, *headers: str, words: str = "How many days?") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", guard.data_port)
    writer.write(post(chat(messages=[{"role": "user", "content": words}]), *headers))
    async with asyncio.timeout(30):
        raw = await reader.read(-1)
    writer.transport.abort()
    return raw


async def test_a_process_that_stood_still_blames_nobody(tmp_path: Path):
    """SIGSTOP in a rollout: what the guard did not see is not held against the canary."""
    async with Upstream(lambda _: Script(http(completion()))) as upstream:
        async with Bare(tmp_path).before(upstream.port) as guard:
            status, _ = await guard.admin("POST", "/api/v1/release/start", {"version": "v2", "plan": "50% for 2h"})
            assert status == 200
            for number in range(40):
                await asked(guard, f"x-guard-session: {number}")
            waiting = []
            guard.process.send_signal(signal.SIGSTOP)
            for number in range(20):
                waiting.append(asyncio.create_task(asked(guard, f"x-guard-session: {number}")))
            await asyncio.sleep(2.5)
            guard.process.send_signal(signal.SIGCONT)
            assert all(taken_apart(raw).status == 200 for raw in await asyncio.gather(*waiting))
            before = await guard.metric("sft_guard_last_evaluation_timestamp_seconds") or 0.0

            async def judged_twice() -> bool:
                return (await guard.metric("sft_guard_last_evaluation_timestamp_seconds") or 0.0) > before + 1.5

            await until(judged_twice)
            _, release = await guard.admin("GET", "/api/v1/release")
            assert (release["phase"], release["canary_ratio"]) == ("rolling_out", 0.5)


@pytest.fixture
def canaries() -> list[str]:
    return [secrets.token_hex(12) for _ in range(500)]


async def test_no_secret_that_went_through_is_found_anywhere(tmp_path: Path, canaries: list[str]):
    """500 marked secrets in questions, answers, headers, errors, keys; then all that keeps or shows anything."""
    supply = iter(canaries)
    answers: list[str] = []

    def answer(seen: Seen) -> Script:
        secret = next(supply)
        answers.append(secret)
        kind = len(answers) % 4
        if kind == 0:
            return Script(http(b'{"error":{"message":"key sk-%s is wrong"}}' % secret.encode(), status="401 No"))
        if kind == 1:
            return Script(http(b"<html>password=%s</html>" % secret.encode(), status="500 Broken"))
        return Script(http(completion(f"The password is {secret}."), f"set-cookie: id={secret}"))

    own = [next(supply) for _ in range(3)]
    keys = {"UPSTREAM_KEY": own[0], "GUARD_TOKEN": f"token-{own[1]}", "HOOK_SECRET": f"whsec_{own[2]}AAAAAAAA"}
    async with Upstream(answer) as upstream:
        guard = Bare(tmp_path, environment=keys).before(upstream.port)
        file = tmp_path / "guard.yaml"
        text = file.read_text().replace('model: m, kb: "1"}', 'model: m, kb: "1", api_key_env: UPSTREAM_KEY}')
        file.write_text(text + "webhooks: [{name: pager, url: 'http://127.0.0.1:9/', secret_env: HOOK_SECRET}]\n")
        async with guard:
            used = 3
            while used + 8 <= len(canaries):
                a, b, c, d, e, f, g = (next(supply) for _ in range(7))
                await asked(
                    guard, f"authorization: Bearer sk-{a}", f"x-api-key: {b}", f"cookie: s={c}",
                    f"x-guard-session: {d}", f"user-agent: {e}",
                    words=f"My password is {f} and my token is ghp_{g}, is that safe?",
                )  # fmt: skip
                used += 8
            assert len(answers) > 50
            feedback = json.dumps({"exchange_id": "none", "thumb": "up", "comment": canaries[5]}).encode()
            await guard.request(guard.data_port, "POST", "/guard/v1/feedback", feedback)
            await guard.request(guard.data_port, "GET", f"/unknown/{canaries[6]}")
            bearer = f"Authorization: Bearer {canaries[7]}\r\n"
            await guard.request(guard.admin_port, "POST", "/api/v1/release/abort", b"{}", bearer)

            async def all_checked() -> bool:
                return (await guard.metric("sft_guard_check_queue_length") or 0.0) == 0.0

            await until(all_checked)
            shown: dict[str, bytes] = {}
            for path in ("/metrics", "/status", "/healthz", "/api/v1/exchanges", "/api/v1/stats", "/api/v1/config",
                         "/api/v1/slo", "/api/v1/release", "/api/v1/incidents", "/docs"):  # fmt: skip
                served: Served = await guard.request(guard.admin_port, "GET", path)
                shown[path] = served.body
            assert shown["/metrics"]
            limits = Path(f"/proc/{guard.process.pid}/limits").read_text().split("Max core file size")[1].split()
            assert limits[0] == "0"  # no core dump will hold any
            await guard.end()
    shown |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.endswith("guard.log") for name in shown)
    # Closed segments may be compressed columns by now: read what they say.
    logged = list(LogReader(tmp_path / "state" / "exchanges"))
    assert len(logged) > 50
    shown["exchange log"] = repr(logged).encode()
    found = {(name, secret) for name, data in shown.items() for secret in canaries if secret.encode() in data}
    assert not found, sorted(found)[:5]
    assert environment()  # the keys themselves were given by environment and stand in no file
