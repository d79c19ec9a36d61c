"""What `lora serve` counts, as text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from exporters.text import FamilyText, Histogram, Sample, render
from slo.metric_names import METRICS

if TYPE_CHECKING:
    from lora.serving.meters import Durations
    from lora.serving.service import Service

SHA256_SHOWN = 12


def metrics_of(name: str) -> Callable[[Service], bytes]:
    """Returns what renders a scrape. name: value of the label `service`."""

    def scrape(service: Service) -> bytes:
        meters, engine = service.meters, service.engine
        adapters = [m for m in service.models.values() if m.handle is not None]
        families: dict[str, Sequence[Sample | Histogram]] = {
            "sft_serve_requests_total": [Sample(labels, n) for labels, n in meters.requests.items()],
            "sft_serve_tokens_total": [Sample(labels, n) for labels, n in meters.tokens.items()],
            "sft_serve_request_duration_seconds": _histograms(meters.duration),
            "sft_serve_time_to_first_token_seconds": _histograms(meters.first_token),
            "sft_serve_waiting": [Sample((), engine.waiting_count)],
            "sft_serve_running": [Sample((), engine.running_count)],
            "sft_serve_steps_total": [Sample((), engine.steps_count)],
            "sft_serve_rows_total": [Sample((), engine.rows_count)],
            "sft_serve_adapter_loads_total": [Sample((result,), n) for result, n in meters.loads.items()],
            "sft_serve_adapter_info": [Sample((m.name, m.sha256[:SHA256_SHOWN]), 1) for m in adapters],
        }
        return render(name, [FamilyText(METRICS[family], samples) for family, samples in families.items()])

    return scrape


def _histograms(durations: Durations) -> list[Histogram]:
    return [
        Histogram((model,), durations.bounds_s, counts, durations.totals_s[model], {})
        for model, counts in durations.counts.items()
    ]
