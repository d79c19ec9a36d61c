"""Strange bytes at the guard, a stranger behind it: nginx and haproxy see the requests that the guard means, no others.

    client: mutated bytes -> guard -> nginx or haproxy -> recorder

A request hidden from the guard, or one that only the guard sees, would show as a request the recorder has and the guard
has not counted, or as another body. FRAMING_STREAMS=100000 for the long form, FRAMING_SEED=10 for
other streams.
"""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guard.ports import Reason
from tests.faults.path_kit import Running, running, settled, target
from tests.faults.scripted_upstream import Script, Upstream, completion, http, unused_port
from tests.faults.test_path_smuggling import HARMLESS, INNER, PROBES

pytestmark = pytest.mark.anyio
COUNT = int(os.environ.get("FRAMING_STREAMS", "250"))  # noqa: TID251 - long form of a test
SEED = int(os.environ.get("FRAMING_SEED", "9"))  # noqa: TID251 - as above: several at once see other streams

NGINX = """\
daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 8m; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 8 64k;
  upstream behind {{ server 127.0.0.1:{behind}; keepalive 16; }}
  server {{ listen 127.0.0.1:{port}; merge_slashes off;
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""
HAPROXY = """\
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{behind}
"""
PEERS = {
    "nginx": (NGINX, ["nginx", "-p", ".", "-c", "peer.conf"], "nginx-light"),
    "haproxy": (HAPROXY, ["haproxy", "-f", "peer.conf", "-db", "-q"], "haproxy"),
}
PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x0b", b":", b",", b";", b"0\r\n\r\n", b"GET /x HTTP/1.1\r\n", INNER,
    b"Content-Length: 2\r\n", b"Content-Length: 40\r\n", b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding : chunked\r\n",
    b"Connection: close\r\n", b"Connection: content-length\r\n", b"Expect: 100-continue\r\n", b"5;a=\"\r\n",
    b"ffff\r\n",
]  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """One or two requests of the smuggling list, damaged in a few places."""
    known = [probe for probe, _ in PROBES.values()] + list(HARMLESS.values())
    raw = bytearray(b"".join(dice.choice(known) for _ in range(dice.choice((1, 1, 2)))))
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        at, how = dice.randrange(len(raw) + 1), dice.randrange(4)
        if how == 0:
            raw[at:at] = dice.choice(PIECES)
        elif how == 1:
            del raw[at : at + dice.choice((1, 2, 10))]
        elif how == 2 and at < len(raw):
            raw[at] = dice.choice((raw[at] ^ 0x20, raw[at] ^ 1, dice.randrange(256)))
        else:
            lines = bytes(raw).split(b"\r\n")
            one = dice.choice(lines)
            lines.insert(dice.randrange(len(lines)), one)
            raw = bytearray(b"\r\n".join(lines))
    return bytes(raw)


@asynccontextmanager
async def peer(name: str, directory: Path, behind: int) -> AsyncIterator[int]:
    """The other program; its port."""
    config, command, package = PEERS[name]
    program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
    if program is None:
        pytest.skip(f"needs {name} (Debian package {package})")
    port = unused_port()
    (directory / "peer.conf").write_text(config.format(port=port, behind=behind))
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    assert process.returncode is None, f"{name} did not start"
                    await asyncio.sleep(0.02)
        writer.transport.abort()
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def send(guard: Running, raw: bytes) -> None:
    """Send it and wait until the guard has read all and answered all, or has closed the connection."""
    read_before = guard.path.stats().bytes_in
    reader, writer = await asyncio.open_connection("127.0.0.1", guard.port)
    writer.write(raw)
    answers = asyncio.ensure_future(reader.read(-1))
    calm_count = 0
    async with asyncio.timeout(30):
        while not answers.done() and calm_count < 3:
            await asyncio.sleep(0.001)
            stats = guard.path.stats()
            calm = stats.bytes_in - read_before >= len(raw) and not stats.in_flight
            calm_count = calm_count + 1 if calm else 0
    writer.transport.abort()
    answers.cancel()
    await asyncio.gather(answers, return_exceptions=True)
    await settled(lambda: not guard.path.stats().in_flight and not guard.path.stats().connections, 30.0)


@pytest.mark.parametrize("name", PEERS)
async def test_nobody_behind_the_guard_sees_another_request(name: str, tmp_path: Path):
    dice = random.Random(SEED)
    sent_on = refused_behind = 0
    async with Upstream(lambda _: Script(http(completion()))) as recorder, peer(name, tmp_path, recorder.port) as port:
        async with running(target(port)) as guard:
            for _number in range(COUNT):
                raw = mutated(dice)
                recorder.requests.clear()
                guard.sink.exchanges.clear()
                guard.sink.captures.clear()
                await send(guard, raw)
                passed = [
                    (exchange, capture)
                    for exchange, capture in zip(guard.sink.exchanges, guard.sink.captures, strict=True)
                    # The recorder's answer is no answer of /ask's dialect, but it is one: the request was passed on.
                    if exchange.reason in ("", Reason.MALFORMED) and exchange.status
                ]
                refused = [exchange for exchange, _ in passed if exchange.status != 200]
                # What the peer refuses it does not pass on; it must be refused whole, never seen as two.
                assert len(recorder.requests) == len(passed) - len(refused), raw
                bodies = [c.request for e, c in passed if c is not None and e.status == 200]
                seen = [request.body for request in recorder.requests if request.body]
                assert sorted(b for b in bodies if b) == sorted(seen) or len(bodies) < len(passed), raw
                sent_on += len(passed)
                refused_behind += len(refused)
            assert guard.path.stats().in_flight == 0
    assert sent_on > COUNT // 25, "the streams were refused nearly all: they show nothing"
    assert refused_behind <= sent_on // 10, (refused_behind, sent_on)
