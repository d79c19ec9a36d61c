"""A fitted model on the disk: numbers and hashes, and one redacted example question per group. No pickle."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from guard.checks.drifting.novelty import Novelty, Seen
from slo.errors import DataError

FORMAT = 1


def save_novelty(path: Path, model: Novelty) -> None:
    """Replace the file in one step; for the owner's eyes.

    Raises:
        OSError: the disk is full or gone.
    """
    import numpy as np

    facts = {
        "format": FORMAT, "fingerprints": model.fingerprints, "examples": model.group_examples,
        "stranger_logit": model.stranger_logit, "calibration_count": model.calibration_count, "window": model.window,
        "spread": model.spread, "limits": model.limits, "count": model.seen.count,
    }  # fmt: skip
    arrays = {f"space{i}": space.astype(np.float16) for i, space in enumerate(model.spaces)}
    out = io.BytesIO()
    np.savez_compressed(
        out, facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), centre=model.centre, scale=model.scale,
        weights=model.weights, groups=model.groups, group_shares=model.group_shares,
        words=np.array(list(model.seen.words.items()), dtype=np.int64).reshape(-1, 2),
        pairs=np.array(sorted(model.seen.pairs), dtype=np.int64), **arrays,  # type: ignore[arg-type]
    )  # fmt: skip
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(out.getvalue())
    os.replace(temporary, path)


def load_novelty(path: Path) -> Novelty:
    """Inverse of `save_novelty`.

    Raises:
        DataError: not such a file, damaged, or of another version.
    """
    import numpy as np

    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            facts = json.loads(found["facts"].tobytes())
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, this program reads {FORMAT}")
            spaces = tuple(found[f"space{i}"].astype(np.float32) for i in range(len(facts["fingerprints"])))
            words = {int(word): int(count) for word, count in found["words"]}
            seen = Seen(int(facts["count"]), words, frozenset(map(int, found["pairs"])))
            centre, scale, weights, groups, shares = (
                found[name] for name in ("centre", "scale", "weights", "groups", "group_shares")
            )
        a, b, c = facts["limits"]
        s, t, u, v = facts["spread"]
        return Novelty(
            tuple(facts["fingerprints"]), spaces, seen, centre, scale, weights, groups, shares,
            tuple(facts["examples"]),
            float(facts["stranger_logit"]), int(facts["calibration_count"]), int(facts["window"]),
            (float(s), float(t), float(u), float(v)), (float(a), float(b), float(c)),
        )  # fmt: skip
    except Exception as error:  # zip, JSON and array decoders each raise their own kinds
        raise DataError(
            f"{path}: no drift model ({' '.join(str(error).split())[:120]}); remove it to learn anew"
        ) from error
