"""All files of `dashboards build`: four boards in two languages, and what Grafana needs to find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dashboards.cost import cost_board
from dashboards.grafana import board_json
from dashboards.model import LANGUAGES, Board, Language
from dashboards.quality import quality_board
from dashboards.release import release_board
from dashboards.service import service_board
from slo.types import Slo

FOLDERS: Mapping[Language, str] = {"en": "sft-guard", "zh-TW": "sft-guard (zh-TW)"}

DATASOURCE = """\
# Grafana data source: Prometheus with links from exemplars to traces. Put your addresses in.
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: ${PROMETHEUS_URL}
    isDefault: true
    jsonData:
      timeInterval: 15s
      exemplarTraceIdDestinations:
        - {name: trace_id, datasourceUid: traces}
  - name: Traces
    uid: traces
    type: tempo
    access: proxy
    url: ${TRACES_URL}
"""


def boards(slos: tuple[Slo, ...], runbooks: Mapping[str, str] | None = None) -> tuple[Board, ...]:
    """The four boards. runbooks: objective name -> page of its alert."""
    pages = runbooks or {}
    return tuple(make(slos, pages) for make in (service_board, release_board, quality_board, cost_board))


def files(
    slos: tuple[Slo, ...],
    *,
    runbooks: Mapping[str, str] | None = None,
    runbook_url: str = "",
    installed_at: str = "/var/lib/grafana/dashboards",
) -> dict[str, str]:
    """Return every file by its path below the output directory.

    runbook_url: address of the runbook pages; "" for no links. installed_at: where Grafana will find the directory.

    Raises:
        ConfigError: the `dashboards` extra is missing.
    """
    made = boards(slos, runbooks)
    found = {
        f"{language}/{board.name}.json": board_json(board, language, runbook_url=runbook_url, all_boards=made)
        for language in LANGUAGES
        for board in made
    }
    found["provisioning/dashboards/sft-guard.yaml"] = _provider(installed_at)
    found["provisioning/datasources/prometheus.yaml"] = DATASOURCE
    return found


def write(made: Mapping[str, str], out: Path) -> None:
    """Write them; a directory that is not there is made."""
    for name, text in made.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _provider(installed_at: str) -> str:
    lines = ["# Grafana dashboard provider. The directory that `dashboards build` wrote belongs at `path`.",
             "apiVersion: 1", "providers:"]  # fmt: skip
    for language in LANGUAGES:
        lines += [
            f"  - name: sft-guard-{language.lower()}",
            f'    folder: "{FOLDERS[language]}"',
            "    type: file",
            "    disableDeletion: true",
            "    options:",
            f"      path: {installed_at.rstrip('/')}/{language}",
        ]
    return "\n".join(lines) + "\n"
