"""The shapes that the admin listener answers in and reads.

Every dataclass here is a JSON object on the wire, field for field: snake_case, units in the names, None = unknown.
"""

from guard.admin.shapes.alerts import AlertBatch, AlertIn, AlertsStored
from guard.admin.shapes.exchanges import ExchangeList, ExchangeRow, FindingRow, Words
from guard.admin.shapes.incidents import IncidentClosed, IncidentDetail, IncidentList, IncidentRow
from guard.admin.shapes.objectives import BaselineInfo, BaselineValue, ComparisonRow, Course, History, SloReport, SloRow
from guard.admin.shapes.process import ConfigView, Health, Part, Readiness, Stats
from guard.admin.shapes.quality import DriftReport, DriftRow, QualityReport
from guard.admin.shapes.release import (
    CommandResult,
    CorrectedRow,
    Deed,
    Gate,
    GateData,
    Judged,
    ReleaseCommand,
    ReleaseStatus,
    VersionView,
)

__all__ = [
    "AlertBatch", "AlertIn", "AlertsStored", "BaselineInfo", "BaselineValue", "CommandResult", "ComparisonRow",
    "ConfigView", "CorrectedRow", "Course", "Deed", "DriftReport", "DriftRow", "ExchangeList", "ExchangeRow",
    "FindingRow", "Gate", "GateData", "Health", "History", "IncidentClosed", "IncidentDetail", "IncidentList",
    "IncidentRow", "Judged", "Part", "QualityReport", "Readiness", "ReleaseCommand", "ReleaseStatus", "SloReport",
    "SloRow", "Stats", "VersionView", "Words",
]  # fmt: skip
