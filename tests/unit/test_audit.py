"""scripts/audit.py: what it makes of the answers of the look-up, and that what was not looked up is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "scripts" / "audit.py"
_spec = importlib.util.spec_from_file_location("audit_script", PATH)
assert _spec is not None
assert _spec.loader is not None
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)


def test_a_known_vulnerability_is_one_line_with_its_cure() -> None:
    known = {"id": "PYSEC-2099-1", "fix_versions": ["2.1"]}
    bad, skipped, looked = audit.judge([{"name": "thing", "version": "2.0", "vulns": [known]}])
    assert bad == ["thing 2.0: PYSEC-2099-1; cure: 2.1"]
    assert (skipped, looked) == ([], 1)


def test_what_was_not_looked_up_is_not_called_clean() -> None:
    bad, skipped, looked = audit.judge(
        [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}]
    )
    assert (bad, skipped, looked) == ([], ["a"], 1)
