"""JSON Schemas of the two YAML files: `python -m guard.schemas [DIR]` writes them, a test compares them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from guard.settings import guard_json_schema
from slo.spec import slo_json_schema


def schema_texts() -> dict[str, str]:
    """File name -> text."""
    schemas = {"guard.schema.json": guard_json_schema(), "slo.schema.json": slo_json_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def main() -> int:
    """Write the schemas."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts().items():
        (directory / name).write_text(text, encoding="utf-8")
        print(directory / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
