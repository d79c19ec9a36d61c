"""Hostile model files: none runs code, reaches a network, or takes more than its share; each is refused in one line."""

from __future__ import annotations

import gzip
import json
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lora.serving.catalog import Sources
from rag.embedding import TransformerEmbedder
from rag.probing import ProbeLimits, noted, probe_bytes, probe_directory, probe_model
from slo.errors import RefusedError
from tests.lora_kit import adapter_directory, adapter_files

ROOT = Path(__file__).resolve().parents[2]
# A regular expression that tries every way to cut a text into words, just within what its library allows, many times.
_SLOW = {"type": "Replace", "pattern": {"Regex": "([A-Za-z0-9: ]+)+[!?]"}, "content": ""}
SLOW = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "pre_tokenizer": None,
    "post_processor": None, "normalizer": {"type": "Sequence", "normalizers": [_SLOW] * 2_000}, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
}  # fmt: skip
# One try more than it allows: the library panics.
PANICS = {**SLOW, "normalizer": {**_SLOW, "pattern": {"Regex": "([A-Za-z0-9: .]+)+[!?]"}}}


class Marks:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def refused(files: dict[str, bytes], limits: ProbeLimits | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        probe_bytes(files, limits)
    assert caught.value.reason == "artifact_rejected"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_adapter_is_read_and_the_child_says_how_it_was_shut_in() -> None:
    assert probe_bytes(adapter_files()) in ("namespace", "refused")
    assert probe_bytes(adapter_files(), ProbeLimits(namespaces=False)) == "refused"


def test_limits_that_this_process_has_are_kept() -> None:
    code = (
        "import resource\nfrom rag.probing import probe_bytes\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "print(probe_bytes({'a.json': b'{}'}, None))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() in ("namespace", "refused"), ended.stderr


def test_without_namespaces_people_are_told_once() -> None:
    said: list[str] = []
    note = noted(said.append)
    for isolation in ("namespace", "refused", "refused"):
        note(isolation)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("model.safetensors", b"\xff" * 64, "header too large"),
        ("model.safetensors", (20).to_bytes(8, "little") + b'{"t": {"dtype":"F32"', "model.safetensors"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "tokenizer.json"),
        ("adapter_config.json", b"[" * 200_000, "nests too deep"),
        ("adapter_config.json", b"{", "adapter_config.json"),
        ("tokenizer.json", json.dumps(PANICS).encode(), "retry-limit"),
        ("vocab.txt", b"\xff\xfe\x00", "utf-8"),
    ],
    ids=["no-header", "half-a-header", "half-a-tokenizer", "deep", "half-an-object", "panics", "not-text"],
)
def test_damaged_files_are_refused_by_name(name: str, data: bytes, why: str) -> None:
    assert why in refused({**adapter_files(), name: data})


def test_a_file_that_wants_endless_memory_is_refused_and_this_process_goes_on() -> None:
    bomb = b"[" + b"[]," * 8_000_000 + b"[]]"  # 24 MB that become half a gigabyte
    assert "memory" in refused({"adapter_config.json": bomb}, ProbeLimits(memory_bytes=200 << 20))


def test_a_file_that_wants_endless_time_is_refused() -> None:
    files = {"tokenizer.json": json.dumps(SLOW).encode()}
    assert "did not survive (killed by signal" in refused(files, ProbeLimits(cpu_s=1))
    assert "not read within 0.5 s" in refused(files, ProbeLimits(wall_s=0.5))


def test_a_pickle_is_not_run_whatever_it_is_called(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    evil = pickle.dumps(Marks(mark))
    for name, data in (
        ("pytorch_model.bin", evil), ("model.pt", gzip.compress(evil)), ("x.pkl", evil), ("model.safetensors", evil),
        ("tokenizer.json", evil), ("modules.json", b'[{"type": "evil.module.Class"}]'), ("modeling_x.py", b"1"),
    ):  # fmt: skip
        directory = tmp_path / name.replace(".", "-")
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        (directory / name).write_bytes(data)
        for load in (probe_directory, lambda path: TransformerEmbedder(str(path))):
            with pytest.raises(RefusedError) as caught:
                load(directory)
            assert caught.value.reason == "artifact_rejected"
            assert "\n" not in str(caught.value)
    assert not mark.exists()
    pickle.loads(evil)
    assert mark.exists()


def test_a_name_of_a_hub_is_no_directory() -> None:
    probe_model("somebody/some-model")


ATTEMPTS = {
    "connect": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "program": "import subprocess; subprocess.run(['/bin/true'])",
    "shell": "import os; os.system('true')",
    "pickle": "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
    "write": "open('{path}', 'w')",
}


@pytest.mark.parametrize("what", sorted(ATTEMPTS))
def test_code_in_the_child_could_do_nothing(what: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        attempt = ATTEMPTS[what].format(port=server.getsockname()[1], path=tmp_path / "x")
        code = f"import socket, subprocess, os, pickle\nfrom rag.probe_child import forbid\nforbid()\n{attempt}\n"
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "PermissionError: tried" in ended.stderr
        with pytest.raises(TimeoutError):
            server.accept()
    assert not (tmp_path / "x").exists()


def test_in_its_namespace_native_code_reaches_nobody() -> None:
    told = {"memory_bytes": 2 << 30, "cpu_s": 60}
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            f"import socket\nfrom rag.probe_child import shut_in\nprint(shut_in({told!r}), flush=True)\n"
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.stdout.strip() != "namespace":
        pytest.skip("this system allows no user namespaces")
    assert "OSError" in ended.stderr


def test_an_adapter_is_read_by_the_child_before_it_is_served(tmp_path: Path) -> None:
    adapter_directory(tmp_path / "hr")
    seen: list[str] = []
    files, _ = Sources(root=tmp_path, isolated=seen.append).read("hr", None)
    assert (set(files), len(seen)) == (set(adapter_files()), 1)
    (tmp_path / "hr" / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(RefusedError, match=r"tokenizer\.json"):
        Sources(root=tmp_path).read("hr", None)
