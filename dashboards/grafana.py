"""A board as Grafana's JSON, by the Grafana foundation SDK. Deterministic: the same board, the same bytes."""

from __future__ import annotations

import json
from typing import Any

from dashboards.model import FULL, Board, Language, Panel, Step
from slo.errors import ConfigError

DATASOURCE = "${datasource}"
EXTRA = "install the extra: pip install 'sft-guard[dashboards]'"
TITLE_HEIGHT = 1


def board_json(board: Board, language: Language, *, runbook_url: str = "", all_boards: tuple[Board, ...] = ()) -> str:
    """Return one dashboard as JSON text.

    runbook_url: where the pages of the alerts are, "" for no links. all_boards: the others, linked at the top.

    Raises:
        ConfigError: the `dashboards` extra is missing.
    """
    try:
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
    except ImportError as error:
        raise ConfigError("dashboards build", "grafana-foundation-sdk", EXTRA) from error
    built = _dashboard(board, language, runbook_url, all_boards).build()
    made = as_dict(JSONEncoder(sort_keys=True).encode(built))
    for note in made["annotations"]["list"]:
        # Grafana's Prometheus annotations have these; the SDK's model of them does not.
        note |= {"titleFormat": note["name"], "textFormat": "{{arm}} {{release}}", "step": "30s"}
    return json.dumps(made, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def uid_of(board: Board, language: Language) -> str:
    """Stable, so that links and bookmarks survive."""
    return f"sft-guard-{board.name}" + ("" if language == "en" else f"-{language.lower()}")


def _dashboard(board: Board, language: Language, runbook_url: str, all_boards: tuple[Board, ...]) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as model

    made = (
        build.Dashboard(board.title.of(language))
        .uid(uid_of(board, language))
        .tags([*board.tags, language])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
    )
    for variable in _variables(language):
        made = made.with_variable(variable)
    made = made.annotation(_annotation(language))
    for other in all_boards:
        if other.name != board.name:
            link = build.DashboardLink(other.title.of(language)).type(model.DashboardLinkType.LINK)
            made = made.link(link.url(f"/d/{uid_of(other, language)}").keep_time(True).include_vars(True))
    y = 0
    for row in board.rows:
        made = made.with_panel(_row(row.title.of(language), y))
        y += TITLE_HEIGHT
        x = line = 0
        for panel in row.panels:
            if x + panel.width > FULL:
                x, y, line = 0, y + line, 0
            made = made.with_panel(_panel(panel, language, runbook_url, x, y))
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return made


def _row(title: str, y: int) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as model

    return build.Row(title).grid_pos(model.GridPos(h=TITLE_HEIGHT, w=FULL, x=0, y=y))


def _variables(language: Language) -> list[Any]:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as model

    zh = language == "zh-TW"

    def asked(name: str, label: str, query: str) -> Any:
        return (
            build.QueryVariable(name)
            .label(label)
            .datasource(_source())
            .query({"query": query, "refId": name})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )

    return [
        build.DatasourceVariable("datasource").type("prometheus").label("資料來源" if zh else "Data source"),
        asked("service", "服務" if zh else "Service", "label_values(sft_guard_uptime_seconds, service)"),
        asked("release", "版本" if zh else "Release", 'label_values(sft_release_info{service="$service"}, release)')
        .multi(True)
        .include_all(True)
        .all_value(".*"),
    ]


def _annotation(language: Language) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build

    from dashboards.model import SERVICE, series

    moved = f"changes({series('sft_release_weight', SERVICE)}[2m]) > 0"
    title = "版本流量變動" if language == "zh-TW" else "release moved"
    note = build.AnnotationQuery().name(title).datasource(_source()).enable(True).icon_color("purple")
    return note.expr(moved)


def _source() -> Any:
    from grafana_foundation_sdk.models import dashboard

    return dashboard.DataSourceRef(type_val="prometheus", uid=DATASOURCE)


def _panel(panel: Panel, language: Language, runbook_url: str, x: int, y: int) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.builders import prometheus
    from grafana_foundation_sdk.models import dashboard as model
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    made = _kind(panel)
    words = "\n\n".join(filter(None, (panel.about.of(language), panel.empty.of(language))))
    made = made.title(panel.title.of(language)).description(words).datasource(_source()).unit(panel.unit)
    made = made.grid_pos(model.GridPos(h=panel.height, w=panel.width, x=x, y=y))
    if panel.empty.of(language):
        made = made.no_value(panel.empty.of(language))
    for number, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        if query.exemplars:
            asked = asked.exemplar(True)
        if panel.kind in ("stat", "table"):
            asked = asked.instant()
        if panel.kind == "table":
            asked = asked.format(PromQueryFormat.TABLE)
        if panel.kind == "heatmap":
            asked = asked.format(PromQueryFormat.HEATMAP)
        made = made.with_target(asked)
    if panel.steps:
        made = made.thresholds(_thresholds(panel.steps))
    if panel.names:
        made = made.mappings([_mapping(panel, language)])
    if panel.lowest is not None:
        made = made.min(panel.lowest)
    if panel.highest is not None:
        made = made.max(panel.highest)
    if panel.runbook and runbook_url:
        title = "處置手冊" if language == "zh-TW" else "Runbook"
        link = build.DashboardLink(title).type(model.DashboardLinkType.LINK)
        made = made.links([link.url(f"{runbook_url.rstrip('/')}/{panel.runbook}").target_blank(True)])
    return made


def _thresholds(steps: tuple[Step, ...]) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as model

    made = [model.Threshold(value=step.value, color=step.colour) for step in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _mapping(panel: Panel, language: Language) -> Any:
    from grafana_foundation_sdk.models import dashboard as model

    options = {
        f"{value:g}": model.ValueMappingResult(text=text.of(language), color=colour, index=index)
        for index, (value, text, colour) in enumerate(panel.names)
    }
    return model.ValueMap(options=options)


def _kind(panel: Panel) -> Any:
    """A builder of the panel's kind, with what only that kind has."""
    from grafana_foundation_sdk.builders import common as common_build
    from grafana_foundation_sdk.builders import heatmap, stat, statetimeline, table, timeseries
    from grafana_foundation_sdk.models import common

    if panel.kind == "stat":
        return stat.Panel().graph_mode(common.BigValueGraphMode.AREA)
    if panel.kind == "table":
        return table.Panel()
    if panel.kind == "statetimeline":
        return statetimeline.Panel().merge_values(True).row_height(0.8)
    if panel.kind == "heatmap":
        return heatmap.Panel()
    made = timeseries.Panel().line_width(2).fill_opacity(10).span_nulls(False)
    if panel.stacked:
        made = made.stacking(common_build.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(40)
    if panel.steps:
        # A line at the limit; areas in red would drown the data.
        made = made.thresholds_style(
            common_build.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    return made


def as_dict(text: str) -> dict[str, Any]:
    """The JSON of a dashboard, read back."""
    found: dict[str, Any] = json.loads(text)
    return found
