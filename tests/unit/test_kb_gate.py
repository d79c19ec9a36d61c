"""The gate on real knowledge bases: staged beside the current one, decided on, promoted or left, packed, registered."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from guard.cli import main
from rag import gating, staging
from rag.chunking import Chunking
from rag.commands import kb_add
from rag.gate_commands import kb_gate, kb_pack, prepare, register
from rag.kb import QUARANTINE, KnowledgeBase
from rag.pack import verify
from rag.rows import read_jsonl
from registry.local import LocalRegistry
from registry.store import RegistryStore
from slo.clock import SystemClock
from slo.errors import DataError, RefusedError


class Wall(SystemClock):
    """Always the same moment."""

    def wall_s(self) -> float:
        return 1_750_000_000.9


WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdklmnrstx"]
RULES = Path(__file__).parents[1] / "data" / "rag_rules_zh.jsonl"


def rows(count: int, mean: int, seed: int, prefix: str) -> list[str]:
    rng = random.Random(seed)
    texts = (" ".join(rng.choices(WORDS, k=max(5, round(rng.gauss(mean, mean / 5))))) for _ in range(count))
    return [json.dumps({"doc_id": f"{prefix}{n}", "text": f"{prefix}{n} {text}"}) for n, text in enumerate(texts)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    """60 rows of 100 tokens, and golden questions for ten of them."""
    directory = tmp_path / "kb"
    KnowledgeBase.init(directory)
    kb_add(directory, jsonl=[write(tmp_path / "old.jsonl", rows(60, 100, 1, "faq"))], embedder="none")
    questions = [json.dumps({"question": f"what about faq{n}", "doc_id": f"faq{n}"}) for n in range(10)]
    write(tmp_path / "golden.jsonl", questions)
    return directory


def stage(kb: Path, lines: list[str]) -> dict[str, object]:
    return kb_add(kb, jsonl=[write(kb.parent / "new.jsonl", lines)], embedder="none", stage=True)


def decide(kb: Path, **options: object) -> dict[str, object]:
    golden = kb.parent / "golden.jsonl"
    return kb_gate(kb, golden=golden, embedder="none", **options)[0]  # type: ignore[arg-type]


def refusals(result: dict[str, object]) -> list[str]:
    return [check["name"] for check in result["checks"] if check["state"] == "refused"]  # type: ignore[attr-defined]


def test_healthy_growth_is_staged_accepted_and_promoted(kb: Path) -> None:
    report = stage(kb, rows(10, 105, 2, "new"))
    assert (report["added"], report["kb_version"]) == (10, 2)
    assert KnowledgeBase.open(kb).meta.kb_version == 1  # nobody sees it yet
    result = decide(kb, promote=True)
    assert result["accepted"] is True
    assert result["promoted"] == 2
    after = KnowledgeBase.open(kb)
    assert (after.meta.kb_version, after.meta.doc_count) == (2, 70)
    assert after.search("new3", 1, "bm25").hits[0].doc_id == "new3"
    assert not (kb / staging.CANDIDATE).exists()
    assert kb_add(kb, jsonl=[write(kb.parent / "more.jsonl", rows(1, 100, 3, "more"))], embedder="none")["added"] == 1


def test_the_first_incident_is_refused_and_the_old_generation_goes_on(kb: Path) -> None:
    """8 % malformed rows and mean 400 -> 280 tokens, here 100 -> 70."""
    lines = rows(92, 70, 2, "new")
    lines[10:10] = ['{"doc_id": "cut'] * 2 + [json.dumps({"doc_id": f"e{n}", "text": ""}) for n in range(4)]
    lines += [json.dumps({"doc_id": f"c{n}", "text": f"a\x00b{n}"}) for n in range(2)]
    report = stage(kb, lines)
    assert (report["added"], report["quarantined"]) == (92, 8)
    result = decide(kb, promote=True)
    assert result["accepted"] is False
    assert "promoted" not in result
    assert refusals(result)[:2] == ["new rows: bad rows", "new rows: row length"]
    named = [row["place"] for row in result["checks"][0]["rows"]]  # type: ignore[index]
    assert sorted(named) == sorted(f"new.jsonl:{n}" for n in (*range(11, 17), 99, 100))
    assert KnowledgeBase.open(kb).meta.kb_version == 1
    assert (kb / staging.CANDIDATE).is_dir()
    kept = [json.loads(line) for line in (kb / QUARANTINE).read_text(encoding="utf-8").splitlines()]
    assert [row["place"] for row in kept] == [f"new.jsonl:{n}" for n in (*range(11, 17), 99, 100)]
    assert all(row["reason"] for row in kept)
    with pytest.raises(RefusedError, match="was refused by the gate"):
        gating.promote(kb)


def test_the_second_incident_is_refused_as_a_rebuild_beside_the_current_one(kb: Path, tmp_path: Path) -> None:
    """15 % empty rows, 3.2 % duplicates, mean 450 -> 280 tokens, here 100 -> 62, let in with allow_bad."""
    rebuilt = tmp_path / "rebuilt"
    KnowledgeBase.init(rebuilt)
    fresh = rows(205, 62, 5, "faq")
    lines = [*fresh, *fresh[:8], *[json.dumps({"doc_id": f"e{n}", "text": ""}) for n in range(37)]]
    kb_add(rebuilt, jsonl=[write(tmp_path / "all.jsonl", lines)], embedder="none", allow_bad=True, dedupe=False)
    result = decide(kb, candidate=rebuilt)
    assert refusals(result)[:3] == ["bad rows", "duplicates", "row length"]
    figures = result["candidate"]
    assert figures["empty_ratio"] == 0.148  # type: ignore[index]
    assert figures["duplicate_ratio"] == 0.032  # type: ignore[index]
    assert KnowledgeBase.open(kb).meta.kb_version == 1


def test_a_generation_that_loses_golden_questions_is_refused_and_they_are_named(kb: Path) -> None:
    # Rows that speak of nothing but what is asked push the right one out of the first ten.
    spam = [f"what about faq4 faq4 {' '.join(random.Random(n).choices(WORDS, k=92))}" for n in range(30)]
    stage(kb, [json.dumps({"doc_id": f"spam{n}", "text": text}) for n, text in enumerate(spam)])
    result = decide(kb)
    assert "recall@3" in refusals(result)
    lost = next(c for c in result["checks"] if c["name"] == "recall@3")["rows"]  # type: ignore[attr-defined]
    assert [row["place"] for row in lost] == ["golden.jsonl:5"]
    assert "what about faq4" in lost[0]["reason"]
    assert "golden.jsonl:5" in (kb / staging.REPORT).read_text(encoding="utf-8")


def test_only_what_the_gate_accepted_is_promoted(kb: Path) -> None:
    with pytest.raises(RefusedError, match="nothing is staged"):
        decide(kb)
    stage(kb, rows(3, 100, 2, "new"))
    with pytest.raises(RefusedError, match="was not looked at"):
        gating.promote(kb)
    with pytest.raises(RefusedError, match="a candidate is waiting"):
        stage(kb, rows(3, 100, 3, "other"))
    assert decide(kb)["accepted"] is True
    staging.discard(kb)
    stage(kb, rows(4, 100, 4, "third"))
    with pytest.raises(RefusedError, match="was not looked at"):  # that verdict was on other rows
        gating.promote(kb)
    assert gating.promote(kb, force=True) == 2


def test_a_candidate_on_a_generation_that_has_gone_is_not_promoted(kb: Path) -> None:
    stage(kb, rows(3, 100, 2, "new"))
    assert decide(kb)["accepted"] is True
    kb_add(kb, jsonl=[write(kb.parent / "other.jsonl", rows(1, 100, 9, "other"))], embedder="none")
    with pytest.raises(RefusedError, match="changed since the candidate was staged"):
        gating.promote(kb)
    assert KnowledgeBase.open(kb).meta.doc_count == 61


def test_the_centroids_of_vectors_are_compared(tmp_path: Path) -> None:
    def made(name: str, texts: list[str]) -> KnowledgeBase:
        lines = [json.dumps({"doc_id": f"d{n}", "text": text}) for n, text in enumerate(texts)]
        KnowledgeBase.init(tmp_path / name)
        kb_add(tmp_path / name, jsonl=[write(tmp_path / f"{name}.jsonl", lines)], embedder="static")
        return KnowledgeBase.open(tmp_path / name)

    leave = [f"Annual leave rule {n}: employees ask their manager before they book a holiday" for n in range(9)]
    one, same = made("one", leave), made("same", leave[::-1])
    other = made("other", [f"Printer {n} needs toner and paper in tray {n}" for n in range(9)])
    near, far = gating.vector_shift(one, same), gating.vector_shift(one, other)
    assert near is not None
    assert far is not None
    assert near < 1e-6 < 0.3 < far
    KnowledgeBase.init(tmp_path / "words").add(read_jsonl(RULES))
    assert gating.vector_shift(one, KnowledgeBase.open(tmp_path / "words")) is None


def test_a_signed_knowledge_base_is_staged_and_promoted_signed(tmp_path: Path) -> None:
    key = b"a-key-of-enough-characters"
    kb = tmp_path / "kb"
    KnowledgeBase.init(kb, key=key)
    staging.stage(kb, read_jsonl(RULES), Chunking(), chunk_name="none", key=key)
    assert kb_gate(kb, embedder="none", promote=True, key=key)[0]["promoted"] == 1
    assert KnowledgeBase.open(kb, key=key).meta.doc_count == 15
    with pytest.raises(DataError):
        kb_pack(kb, tmp_path / "p.tar.gz", key=b"another key that is wrong")


def test_near_twins_and_updates_are_treated_as_by_an_ordinary_add(kb: Path) -> None:
    text = json.loads(rows(60, 100, 1, "faq")[4])["text"]
    new = [json.dumps({"doc_id": "twin", "text": text + " once more"})]
    report = kb_add(kb, jsonl=[write(kb.parent / "t.jsonl", new)], embedder="none", stage=True, near="skip")
    assert (report["added"], report["skipped"]) == (0, 1)
    staging.discard(kb)
    new = [json.dumps({"doc_id": "faq4", "text": "another text for it"})]
    report = kb_add(kb, jsonl=[write(kb.parent / "t.jsonl", new)], embedder="none", stage=True, update=True)
    assert (report["added"], report["replaced"], report["doc_count"]) == (1, 1, 60)
    assert gating.promote(kb, force=True) == 2
    assert KnowledgeBase.open(kb).search("another text", 1, "bm25").hits[0].doc_id == "faq4"


def test_what_was_staged_and_thrown_away_leaves_its_bad_rows_behind(kb: Path) -> None:
    stage(kb, ["no json", *rows(2, 100, 2, "new")])
    staging.discard(kb)
    assert "no json" in (kb / QUARANTINE).read_text(encoding="utf-8")
    assert KnowledgeBase.open(kb).meta.doc_count == 60
    with pytest.raises(RefusedError, match="nothing is staged"):
        staging.discard(kb)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "golden.jsonl:1: not JSON"),
        ('{"doc_id": "a"}', "no `question`"),
        ('{"question": "q"}', "says not what is to be found"),
        ('{"question": "q", "doc_ids": [1.5]}', "`doc_ids` a list"),
        ('{"question": "q", "doc_id": true}', "`doc_ids` a list"),
        ("", "no golden question"),
    ],
)
def test_golden_questions_that_cannot_be_used_are_one_line(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(DataError, match=why.replace("[", r"\[")) as caught:
        gating.read_golden(write(tmp_path / "golden.jsonl", [line]))
    assert "\n" not in str(caught.value)


def test_a_golden_question_may_name_its_document_by_number(tmp_path: Path) -> None:
    found = gating.read_golden(write(tmp_path / "golden.jsonl", ['{"question": "q", "doc_id": 7}']))
    assert found[0].doc_ids == ("7",)


@pytest.mark.anyio
async def test_a_pack_is_registered_as_the_practice_does_it(tmp_path: Path) -> None:
    kb = tmp_path / "kb"
    KnowledgeBase.init(kb)
    kb_add(kb, jsonl=[RULES], chunk="none", embedder="none", stage=True)
    assert kb_gate(kb, embedder="none", promote=True)[0]["promoted"] == 1
    made = kb_pack(kb, tmp_path / "one.tar.gz")
    assert kb_pack(kb, tmp_path / "two.tar.gz")["checksum"] == made["checksum"]
    ready = prepare(tmp_path / "one.tar.gz", kb, {"note": "first"}, "abc123")
    port = LocalRegistry(RegistryStore(f"sqlite:///{tmp_path}/registry.db"))
    result = await register(port, ready, "faq-kb", "sre", "fifteen rules", "ann", Wall())
    assert result["version"] == "1-kb+1750000000"
    version = await port.version("faq-kb", str(result["version"]))
    assert version.tags == ("kb", "rag", "incremental")
    assert dict(version.meta) == {
        "artifact_type": "KnowledgeBase",
        "embedding_model": KnowledgeBase.open(kb).meta.model,
        "dim": 384,
        "doc_count": 15,
        "kb_version": 1,
        "index_type": "faiss.IndexFlatL2",
        "hash": made["checksum"],
    }
    assert version.artifact_url == f"file://{tmp_path}/one.tar.gz"
    assert version.lineage.created_by == "ann"
    assert version.lineage.git_commit == "abc123"
    assert version.lineage.data_hash == verify(tmp_path / "one.tar.gz").data_hash
    profile = version.lineage.parameters["profile"]
    assert profile["row_count"] == 15  # type: ignore[index]
    assert version.lineage.parameters["chunking"] == "none"
    gates = await port.evaluations("faq-kb", str(result["version"]))
    assert [(e.name, e.result["accepted"]) for e in gates] == [("kb-gate", True)]
    again = await register(port, ready, "faq-kb", "sre", "fifteen rules", "bob", SystemClock())
    assert (again["version"], again["note"]) == (result["version"], "this pack is registered already")
    assert len(await port.versions("faq-kb")) == 1
    await port.close()


def test_the_commands_say_what_is_wrong_in_one_line(kb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = kb.parent / "faq.tar.gz"
    assert main(["kb", "pack", "--kb", str(kb), "--out", str(pack), "--json"]) == 0
    checksum = json.loads(capsys.readouterr().out)["checksum"]
    assert main(["kb", "verify", str(pack), "--checksum", checksum, "--json"]) == 0
    pack.write_bytes(pack.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["kb", "verify", str(pack), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["refused"] == "damaged"
    for words in (
        ["kb", "gate", "--kb", str(kb)],
        ["kb", "gate", "--kb", str(kb / "none")],
        ["kb", "gate", "--kb", str(kb), "--discard", "--promote"],
        ["kb", "profile"],
        ["kb", "register", str(pack), "--name", "faq-kb", "--param", "x"],
        ["kb", "register", str(pack), "--name", "faq-kb", "--registry", "nowhere"],
        ["kb", "pack", "--kb", str(kb), "--out", str(kb / "no" / "dir.tar.gz")],
        ["registry", "alias", "m", "candidate", "--registry", f"sqlite:///{kb}/r.db"],
        ["registry", "show", "ghost", "--registry", f"sqlite:///{kb}/r.db"],
        ["registry", "list", "--registry", "http://127.0.0.1:9"],
    ):
        assert main(words) == 2, words
        assert len(capsys.readouterr().err.strip().splitlines()) == 1, words


def test_a_profile_compares_before_anything_is_added(kb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(kb.parent / "bad.jsonl", ["no json"] * 5 + rows(40, 100, 4, "new"))
    assert main(["kb", "profile", "--jsonl", str(bad), "--against", str(kb)]) == 1
    assert "5 of 45 rows (11.1%): 5 malformed" in capsys.readouterr().out
    assert main(["kb", "profile", "--kb", str(kb), "--json"]) == 0
    profile = json.loads(capsys.readouterr().out)
    assert (profile["row_count"], profile["empty_ratio"]) == (60, 0.0)
    assert main(["kb", "profile", "--jsonl", str(bad)]) == 0
    assert "bad.jsonl:1: malformed: not JSON" in capsys.readouterr().out
