"""A password in a URL is refused where it would be used, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.cli import main
from rag.endpoint import EndpointEmbedder
from rag.finetune.api import make_client
from rag.model_client import ModelConfig
from slo.errors import ConfigError

SECRET = "s3cret-pass"
URL = f"http://bob:{SECRET}@127.0.0.1:9/v1"


@pytest.mark.parametrize(
    "url", [URL, f"https://{SECRET}@host/v1", f"http://bob:{SECRET}@host:x/v1", f"http://a:{SECRET}@[::1/v1"]
)
def test_a_model_is_not_asked_at_such_an_address(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(url, "m")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nor_are_embeddings_or_a_training_service() -> None:
    for refused in (lambda: EndpointEmbedder(URL, "m", tries_count=1), lambda: make_client(URL, "k")):
        with pytest.raises(ConfigError, match="no user or password in a URL") as caught:
            refused()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://api.example.com/v1", "http://[::1]:80"])
def test_plain_addresses_are_taken(url: str) -> None:
    assert ModelConfig(url, "m").base_url == url


def test_no_error_of_a_configuration_shows_a_password() -> None:
    assert str(ConfigError("guard.yaml: x", URL, "c")) == "guard.yaml: x: got 'http://...@127.0.0.1:9/v1'; c"
    assert SECRET not in str(ConfigError("p", {"url": URL, "other": f"redis://:{SECRET}@h"}, "c"))
    assert "a@b.c" in str(ConfigError("p", "a@b.c", "c"))


@pytest.mark.parametrize("split", ["nan/1/1", "inf/1/1", "1/nan/1", "1e308/1e308/1", "0/1/1", "a/b/c", "1/2"])
def test_a_split_that_is_none_is_one_line(split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora", "dataset", "--kb", str(tmp_path), "--out", str(tmp_path / "o"), "--split", split]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--split" in said
    assert not (tmp_path / "o").exists()
