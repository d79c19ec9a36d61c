"""Alerts that come in on the admin listener."""

from __future__ import annotations

import pytest

from guard.admin.shield import ALERTS_PATH
from slo.errors import RefusedError
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import DELIVERY, TOKEN, Site

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def test_alerts_are_stored_once_however_often_they_come() -> None:
    site = Site()
    assert (await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)).json == {
        "stored_count": 1,
        "duplicate_count": 0,
        "truncated_count": 0,
    }
    assert (await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)).json["duplicate_count"] == 1
    (alert,) = site.backend.batches[0].alerts
    assert alert.key == ("abc123", "2025-06-15T15:06:40Z", "firing")
    assert alert.labels == {"alertname": "HighErrorRate"}
    assert alert.generator_url == "http://prom.example/graph"
    resolved = DELIVERY | {"alerts": [DELIVERY["alerts"][0] | {"status": "resolved"}]}  # type: ignore[index]
    assert (await site.ask("POST", ALERTS_PATH, resolved, token=TOKEN)).json["stored_count"] == 1


@pytest.mark.parametrize(
    "body",
    [{"version": "4", "alerts": []}, {"version": "4", "alerts": [{}]}, {"version": "4", "alerts": [{"new_field": 1}]},
     {"version": "4", "alerts": [{"labels": {"alertname": "Unheard of"}, "status": "strange"}], "more": {}}],
)  # fmt: skip
async def test_an_alert_that_nobody_knows_is_never_refused(body: dict[str, object]) -> None:
    assert (await Site().ask("POST", ALERTS_PATH, body, token=TOKEN)).status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", {"alerts": []}, {"version": "3", "alerts": []}, {"version": "4", "alerts": "x"}]
)
async def test_what_is_no_delivery_is_refused_in_one_line(body: object) -> None:
    answer = await Site().ask("POST", ALERTS_PATH, body, token=TOKEN)
    assert (answer.status, answer.error) == (400, "invalid")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RefusedError("full", "no"), ZeroDivisionError("x")])
async def test_alerts_that_cannot_be_stored_are_asked_for_again(error: Exception) -> None:
    site = Site()
    site.backend.error = error
    answer = await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)
    assert (answer.status, answer.error) == (503, "not_stored")
