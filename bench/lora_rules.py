"""Rules proposed from the confusions of one half of the questions, measured on the other half, with a real small model.

    .venv/bin/python -m bench.lora_rules [--epochs 8 16 30] [--json]

Adapters of different age on the small model of the tests (12 documents of the demo). Half of the phrasings are trained
on, a quarter is asked to propose rules from, the last quarter to measure them: no question stands in two of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from guard.lora_scoring import Scorer
from lora.answering import LocalModel
from lora.dataset import Plan, make_dataset
from lora.evaluate import REFUSAL, Graded
from lora.evaluation import ADAPTER, ADAPTER_RULES, figures_json
from lora.figures import figures
from lora.guards import Guards
from lora.phrasings import load_phrasings
from lora.postprocess import load_rules
from lora.suggest import Judged, as_yaml, form_of, suggest
from tests.lora_models import quiet, tiny_adapter, tiny_base, tiny_documents

SHOWN = ("similarity", "accuracy", "high_quality", "poor", "hallucinated", "confusion", "refusal_accuracy")


def judged(graded: tuple[Graded, ...]) -> list[Judged]:
    """Rows as `lora rules suggest` reads them."""
    return [Judged(g.row.question, g.row.rule, "" if g.given == REFUSAL else g.given, g.row.answer) for g in graded]


def measure(epochs: int, documents: int, work: Path) -> dict[str, Any]:
    """One adapter, its rules, and both sides of the half that they were not written for."""
    base, texts = tiny_base(work / "base"), tiny_documents(documents)
    data = make_dataset(texts, load_phrasings(), Plan(seed=1, ratios=(0.5, 0.25, 0.25)))
    adapter = tiny_adapter(base, data.train, work / f"adapter-{epochs}", epochs=epochs)
    model, by_id = LocalModel(str(base), adapter, threads=1), {d.doc_id: d.text for d in texts}

    def sides(rows: Any, rules: Any) -> dict[str, tuple[Graded, ...]]:
        said = model.answers([row.question for row in rows], Guards(), lambda done: None, batch=16)
        return Scorer(rows, by_id, "static").sides({ADAPTER: said}, rules)

    first = judged(sides(data.validation, None)[ADAPTER])
    found = suggest(first, by_id)
    (work / "rules.yaml").write_text(as_yaml(found, form_of(first, by_id)), encoding="utf-8")
    after = sides(data.test, load_rules(work / "rules.yaml", by_id))
    fired = [str(g.how) for g in after[ADAPTER_RULES]]
    return {
        "epochs": epochs, "trained": len(data.train), "proposed_from": len(first), "measured_on": len(data.test),
        "topics": len(found), "fired": {how: fired.count(how) for how in sorted(set(fired))},
        "raw": figures_json(figures(after[ADAPTER])), "rules": figures_json(figures(after[ADAPTER_RULES])),
    }  # fmt: skip


def main() -> int:
    """Print one block for each age."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, nargs="+", default=[8, 16, 30])
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    quiet()
    results = []
    with tempfile.TemporaryDirectory() as directory:
        for epochs in args.epochs:
            one = measure(epochs, args.documents, Path(directory))
            results.append(one)
            print(
                f"{epochs} epochs, {one['topics']} topics, {one['measured_on']} questions: {one['fired']}",
                file=sys.stderr,
            )
            for name in SHOWN:
                print(f"  {name:18} {one['raw'][name]:.3f} -> {one['rules'][name]:.3f}", file=sys.stderr)
    if args.json:
        print(json.dumps({"results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
