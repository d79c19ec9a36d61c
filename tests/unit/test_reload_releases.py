"""What of a version that was taken out of guard.yaml stays behind: nothing on the metrics page."""

from __future__ import annotations

import asyncio
from pathlib import Path

from guard.settings import load_settings
from guard.wiring import Guard
from tests.slo_builders import make_exchange

CONFIG = """\
service: faq-bot
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v0: {{upstreams: ["http://127.0.0.1:8810"], model: m, kb: "0"}}
  v{number}: {{upstreams: ["http://127.0.0.1:8811"], model: m, kb: "{number}"}}
release: {{stable: v0}}
checks: {{enabled: false}}
"""


def test_after_forty_versions_the_next_one_is_still_counted(tmp_path: Path) -> None:
    path = tmp_path / "guard.yaml"
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n", encoding="utf-8")

    async def one_after_the_other() -> str:
        path.write_text(CONFIG.format(number=1), encoding="utf-8")
        guard = Guard(load_settings(path, {}))
        try:
            for number in range(1, 41):
                path.write_text(CONFIG.format(number=number), encoding="utf-8")
                await guard.reload(load_settings(path, {}))
                for name in ("v0", f"v{number}"):
                    release = guard.settings.targets[name].version.release_id
                    guard.exporter.served(make_exchange(release=release))
            shown = guard.exporter._render(False, ()).decode()
            releases = {target.version.release_id for target in guard.settings.targets.values()}
            assert all(f'sft_availability_requests_total{{service="faq-bot",route="chat",release="{release}"' in shown
                       for release in releases)  # fmt: skip
            return shown
        finally:
            await guard.stop(drain=False)

    shown = asyncio.run(one_after_the_other())
    assert shown.count("sft_availability_requests_total{") == 2
    assert 'sft_guard_series_dropped_total{service="faq-bot"} 0' in shown
