"""The cache in the whole program: hits, thumbs down, rollback, restart, reload; in memory and on a real Redis."""

from __future__ import annotations

import http.server
import json
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache_kit import RedisServer, redis_server
from tests.e2e.test_serve import CONFIG, Model, Sidecar, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> Iterator[list[int]]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [s.server_address[1] for s in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def make(models: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    monkeypatch.setenv("CACHE_KEY", "a key of at least sixteen bytes")
    text = CONFIG.format(stable=models[0], canary=models[1])
    # Nothing is warmed: a rollback would be followed by a hit as soon as the guard had asked the question itself.
    (tmp_path / "guard.yaml").write_text(text + "cache: {ttl: 1h, warming: {enabled: false}}\n")
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    sidecar = Sidecar(tmp_path)
    yield sidecar
    if sidecar.process is not None and sidecar.process.poll() is None:
        sidecar.stop(signal.SIGKILL)


def state(sidecar: Sidecar) -> tuple[str, str]:
    """Ask the one question; (x-guard-cache, exchange id)."""
    body = {"model": "gpt-4o-mini", "temperature": 0, "messages": [{"role": "user", "content": "How much leave?"}]}
    request = urllib.request.Request(
        f"{sidecar.data}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
        return response.headers["x-guard-cache"], response.headers["x-guard-exchange-id"]


def hit(sidecar: Sidecar) -> None:
    """It is answered from the cache before long; the checks come first. Then no further answer waits for its own."""
    until(lambda: state(sidecar)[0] == "hit")
    time.sleep(1.1)  # for so long a page of metrics is given again
    until(lambda: sidecar.metric("sft_guard_check_queue_length") == 0.0)


def test_in_memory(make: Sidecar) -> None:
    make.start()
    assert state(make)[0] == "miss"
    hit(make)
    _, exchange_id = state(make)
    assert make.post("/guard/v1/feedback", {"exchange_id": exchange_id, "thumb": "down"}, make.data)[0] == 202
    assert state(make)[0] == "miss"
    hit(make)
    assert make.post("/api/v1/release/start", {"version": "v2", "plan": "100% for 2h"})[0] == 200
    assert state(make)[0] == "miss"  # another release
    hit(make)
    assert make.post("/api/v1/release/rollback", {"reason": "test"})[0] == 200
    assert state(make)[0] == "miss"  # the old release, and still a new epoch
    hit(make)
    assert 'sft_cache_removed_total{service="faq-bot",reason="flagged"} 1' in make.get("/metrics")
    assert (make.metric("sft_cache_entries") or 0) >= 1

    file = make.directory / "guard.yaml"
    file.write_text(file.read_text().replace("cache: {ttl: 1h", "cache: {ttl: 1h, max_bytes: 1MiB"))
    assert make.process is not None
    make.process.send_signal(signal.SIGHUP)
    until(lambda: make.metric("sft_guard_config_last_reload_success") == 0.0)
    assert "restart the guard to change this part" in (make.directory / "guard.log").read_text()
    file.write_text(file.read_text().replace("max_bytes: 1MiB", "routes: {chat: {enabled: false}}"))
    make.process.send_signal(signal.SIGHUP)
    until(lambda: make.metric("sft_guard_config_last_reload_success") == 1.0)
    assert state(make)[0] == "bypass"
    assert make.stop() == 0


def on(redis: RedisServer, make: Sidecar) -> None:
    file = make.directory / "guard.yaml"
    url = f"redis://127.0.0.1:{redis.port}"
    redis_part = f"{{url: '{url}', hmac_key_env: CACHE_KEY, budget: 1s}}"
    file.write_text(file.read_text().replace("cache: {ttl: 1h", f"cache: {{store: redis, redis: {redis_part}"))


def test_on_redis_answers_outlive_the_guard_and_what_was_taken_back_does_not_come_back(make: Sidecar) -> None:
    with redis_server() as redis:
        on(redis, make)
        make.start()
        hit(make)
        assert make.metric("sft_cache_redis_up") == 1.0
        _, exchange_id = state(make)
        redis.tell("SAVE")
        shutil.copy(redis.directory / "dump.rdb", make.directory / "old.rdb")
        assert make.post("/guard/v1/feedback", {"exchange_id": exchange_id, "thumb": "down"}, make.data)[0] == 202
        assert make.stop() == 0
        redis.stop()
        shutil.copy(make.directory / "old.rdb", redis.directory / "dump.rdb")
        redis.start()
        make.start()
        assert state(make)[0] == "miss"  # it is in Redis again, and known to be void
        hit(make)
        assert make.stop() == 0
        make.start()
        assert state(make)[0] == "hit"
        redis.stop()
        assert {state(make)[0] for _ in range(10)} == {"miss"}
        until(lambda: make.metric("sft_cache_redis_up") == 0.0)
        assert 'dep="redis"' in make.get("/metrics")
        assert make.stop() == 0
