"""What the weights of a base model are known by. The standard library alone."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def weights_sha256(base: str) -> str:
    """SHA-256 over the weight files of a model's directory; "" for one of the hub, which is known by its commit."""
    weights = sorted(Path(base).glob("*.safetensors")) if Path(base).is_dir() else []
    digest = sha256()
    for path in weights:
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest() if weights else ""
