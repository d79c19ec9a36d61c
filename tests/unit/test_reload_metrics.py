"""What a reload changes on the metrics page: bounds of other thresholds, and no series of a version that is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from guard.settings import load_settings
from guard.wiring import Guard
from tests.slo_builders import make_exchange

GUARD = """\
service: faq-bot
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions:
  v1: {upstreams: ["http://127.0.0.1:8810"], kb: "1"}
  v2: {upstreams: ["http://127.0.0.1:8811"], kb: "2"}
release: {stable: v1}
checks: {enabled: false}
"""
SLO = """\
service: faq-bot
objectives: [{name: p95, indicator: sft_perf_latency_p95_ms, window: 1h, threshold: {absolute: 1700}, action: rollback}]
"""


def test_a_reload_takes_bounds_and_releases_with_it(tmp_path: Path) -> None:
    file = tmp_path / "guard.yaml"
    file.write_text(GUARD)
    (tmp_path / "slo.yaml").write_text(SLO)

    async def reloaded() -> str:
        guard = Guard(load_settings(file, {}))
        try:
            guard.release.open().restore()
            v1, v2 = (target.version.release_id for target in guard.settings.targets.values())
            for release in (v1, v2):
                guard.exporter.served(make_exchange(release=release))
            file.write_text("".join(line for line in GUARD.splitlines(keepends=True) if "v2" not in line))
            (tmp_path / "slo.yaml").write_text(SLO.replace("1700", "700").replace("p95,", "slow,", 1))
            await guard.reload(load_settings(file, {}))
            guard.exporter.served(make_exchange(release=v1, duration_s=0.6))
            page = (await guard.exporter.scrape()).decode()
            assert f'release="{v2}"' not in page
            assert f'sft_availability_requests_total{{service="faq-bot",route="chat",release="{v1}"' in page
            return page
        finally:
            await guard.stop(drain=False)

    page = asyncio.run(reloaded())
    buckets = [line for line in page.splitlines() if line.startswith("sft_perf_request_duration_seconds_bucket")]
    assert [line.rsplit(" ", 1)[1] for line in buckets if 'le="0.7"' in line] == ["1"]
    assert not any('le="1.7"' in line for line in buckets)
    assert 'sft_release_rollbacks_total{service="faq-bot",reason="slow"} 0' in page
