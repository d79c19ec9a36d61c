"""Keys of the cache that were met lately, for whoever names one by its first digits: flat memory, all taken at once."""

from __future__ import annotations

from collections.abc import Iterator

from guard.cache.types import CacheKey, Namespace
from guard.lately import Lately
from guard.slots import Slots

KEYS_COUNT = 2**15
NAMESPACES_COUNT = 4096
_HASH_BYTES = 32
_NUMBER_BYTES = 6


class MetKeys:
    """About the last 20,000 keys, 78 bytes each, of at least the last 2,048 namespaces.

    >>> from guard.cache.types import key_in
    >>> key = key_in(Namespace("r1", 1, "", "chat"), bytes(32))
    >>> met = MetKeys()
    >>> met.add(key)
    >>> met.named(key.text[:8]) == [key], len(met)
    (True, 1)
    """

    def __init__(self, count: int = KEYS_COUNT) -> None:
        self._slots = Slots(count, 2 * _HASH_BYTES + _NUMBER_BYTES)
        # Numbers are never used twice, so that a namespace that was forgotten cannot be taken for another.
        self._numbers = Lately[Namespace, int](NAMESPACES_COUNT)
        self._namespaces = Lately[int, Namespace](NAMESPACES_COUNT)
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """What it takes, empty or full, but for the namespaces."""
        return self._slots.size_bytes

    def add(self, key: CacheKey) -> None:
        """A key was met."""
        number = self._numbers.get(key.namespace)
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
        self._numbers[key.namespace] = number
        self._namespaces[number] = key.namespace
        self._slots.put(key.digest, key.digest + key.fingerprint + number.to_bytes(_NUMBER_BYTES, "big"))

    def discard(self, key: CacheKey) -> None:
        """Forget one, if it is there."""
        self._slots.discard(key.digest)

    def named(self, text: str) -> list[CacheKey]:
        """Those whose hex digits begin so."""
        try:
            whole = bytes.fromhex(text[: len(text) // 2 * 2])
        except ValueError:
            return []
        return [key for value in self._slots.values() if value.startswith(whole) for key in self._keys(value, text)]

    def _keys(self, value: bytes, text: str) -> Iterator[CacheKey]:
        digest, fingerprint = value[:_HASH_BYTES], value[_HASH_BYTES : 2 * _HASH_BYTES]
        namespace = self._namespaces.get(int.from_bytes(value[2 * _HASH_BYTES :], "big"))
        if namespace is not None and digest.hex().startswith(text):
            yield CacheKey(namespace, fingerprint, digest)
