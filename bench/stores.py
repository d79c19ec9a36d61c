"""What the bounded stores of a guard take when they are full: `python -m bench.stores`. Seed 1.

Allocations as `tracemalloc` counts them, MiB. Tables of a fixed size are as large when they are empty.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable

from guard.cache.met import KEYS_COUNT, MetKeys
from guard.cache.service import ID_BYTES, REMEMBERED_COUNT
from guard.cache.types import Namespace, key_in
from guard.human_labels import VERDICTS_COUNT
from guard.quality import GIVEN_COUNT
from guard.recent import RELEASE_OF_COUNT
from guard.slots import Recall, Slots
from guard.stamps import Stamps
from slo.rings import Bucket, Ring
from slo.running import SPARE
from slo.windows import RINGS, Windows, bin_key

PER_S = 50


def mib(make: Callable[[], object]) -> float:
    """Allocated by what `make` returns, while it lives."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del made
    return taken / 2**20


def hour(dice: random.Random, *, quantiles: bool) -> Windows:
    windows = Windows(quantiles=quantiles)
    for bucket in range(360):
        for _ in range(10 * PER_S):
            windows.add(10.0 * bucket, 0.0, 1.0, dice.lognormvariate(-3.0, 1.0))
    return windows


def month(dice: random.Random, *, quantiles: bool) -> list[Ring]:
    """Rings that are full: eight different buckets again and again, and each packed for itself."""
    rings = []
    for width_s, longest_s in RINGS:
        seen = []
        for _ in range(8):
            bucket = Bucket({})
            bucket.count = bucket.total = bucket.squares = width_s * PER_S
            assert isinstance(bucket.bins, dict)
            for _ in range(int(width_s) * PER_S if quantiles else 0):
                key = bin_key(dice.lognormvariate(-3.0, 1.0))
                bucket.bins[key] = bucket.bins.get(key, 0.0) + 1.0
            seen.append(bucket)
        count = round(longest_s / width_s) + SPARE + 2
        rings.append(Ring(count, quantiles=quantiles))
        for number in range(count):
            rings[-1].add(number, seen[number % 8])
    return rings


def identity(dice: random.Random) -> str:
    return f"{dice.getrandbits(128):032x}"


def keys() -> MetKeys:
    met = MetKeys()
    for number in range(KEYS_COUNT):
        met.add(key_in(Namespace("r1", 1, f"t:{number % 3000}", "chat"), number.to_bytes(32, "big")))
    return met


def verdicts(dice: random.Random) -> Recall[tuple[str, bool]]:
    said = Recall[tuple[str, bool]](VERDICTS_COUNT)
    for number in range(VERDICTS_COUNT):
        said[identity(dice)] = (f"r{number % 16}", number % 3 == 0)
    return said


def main() -> None:
    dice = random.Random(1)
    found = {
        "answers_given": mib(lambda: Stamps(GIVEN_COUNT)),
        "latency_window_hour": mib(lambda: hour(dice, quantiles=True)),
        "latency_window_empty": mib(lambda: Windows(quantiles=True)),
        "latency_window_month": mib(lambda: month(dice, quantiles=True)),
        "other_window_empty": mib(lambda: Windows()),
        "other_window_hour": mib(lambda: hour(dice, quantiles=False)),
        "other_window_month": mib(lambda: month(dice, quantiles=False)),
        "keys_met": mib(keys),
        "sources": mib(lambda: Slots(REMEMBERED_COUNT, ID_BYTES)),
        "verdicts": mib(lambda: verdicts(dice)),
        "releases_of_answers": mib(lambda: Recall[str](RELEASE_OF_COUNT)),
    }
    print(json.dumps({name: round(size, 2) for name, size in found.items()}))


if __name__ == "__main__":
    main()
