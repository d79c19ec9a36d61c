"""The trained model of one claim: a logistic part and boosted trees, evaluated in plain Python. Pure.

    probability = 1 / (1 + exp(-(intercept + weights . features + sum of the leaf of each tree)))

Trees are arrays, as they stand in the JSON file: node i asks `features[feature[i]] <= threshold[i]` and goes to
`left[i]` or `right[i]`; a node with feature -1 is a leaf worth `threshold[i]`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import and_, getitem

import msgspec

from slo.errors import DataError

MAX_NODES = 512
LEAVES = 8


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tree; all four arrays have one entry per node, the root is node 0, children come after their parent."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]


def log_odds(
    features: Sequence[float], intercept: float, weights: Sequence[float], trees: Sequence[Tree] = ()
) -> float:
    """Log odds of a claim being unsupported.

    >>> stump = Tree((0, -1, -1), (0.5, -1.0, 2.0), (1, 0, 0), (2, 0, 0))
    >>> log_odds((0.7,), 0.25, (1.0,), (stump,))
    2.95
    """
    total = intercept + sum([w * x for w, x in zip(weights, features, strict=True)])
    if not trees:
        return total
    return _forest_of(trees).added_to(total, features)


class _Forest:
    """Trees of up to eight leaves, walked all at once (QuickScorer, Lucchese et al., SIGIR 2015).

    A byte per tree has a bit per leaf, leftmost lowest. A question that goes right rules out the leaves to its left;
    of one feature these are the questions with a threshold below its value, so their masks are joined beforehand. The
    lowest bit that stays is the leaf. One integer holds the bytes of all trees. Larger trees are walked node by node.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        leaves = [_leaves(tree) for tree in trees]
        small = [i for i, found in enumerate(leaves) if len(found) <= LEAVES]
        self._walked = [(i, trees[i]) for i in range(len(trees)) if len(leaves[i]) > LEAVES]
        self._tables = [_by_lowest_bit([trees[i].threshold[leaf] for leaf in leaves[i]]) for i in small]
        self._all = (1 << 8 * len(small)) - 1
        asked: dict[int, list[tuple[float, int]]] = {}
        for byte, i in enumerate(small):
            tree, place = trees[i], {leaf: bit for bit, leaf in enumerate(leaves[i])}
            for node, at in enumerate(tree.feature):
                if at >= 0:
                    left = sum(1 << place[leaf] for leaf in _leaves(tree, tree.left[node]))
                    asked.setdefault(at, []).append((tree.threshold[node], self._all & ~(left << 8 * byte)))
        self._asked: list[tuple[int, list[float], list[int]]] = []
        for at, questions in sorted(asked.items()):
            questions.sort(key=lambda q: q[0])
            masks = list(accumulate((mask for _, mask in questions), and_, initial=self._all))
            self._asked.append((at, [threshold for threshold, _ in questions], masks))

    def added_to(self, total: float, features: Sequence[float]) -> float:
        """total and the leaf of every tree."""
        left = self._all
        for at, thresholds, masks in self._asked:
            left &= masks[bisect_left(thresholds, features[at])]
        found = map(getitem, self._tables, left.to_bytes(len(self._tables), "little"))
        if not self._walked:
            return sum(found, total)
        values = list(found)
        for i, tree in self._walked:  # in their own place: a sum in another order is another number
            values.insert(i, _walk(tree, features))
        return sum(values, total)


def _leaves(tree: Tree, node: int = 0) -> list[int]:
    """Leaves under a node, from left to right; a tree that was checked has no loops."""
    found, open_nodes = [], [node]
    while open_nodes:
        at = open_nodes.pop()
        if tree.feature[at] < 0:
            found.append(at)
        else:
            open_nodes += (tree.right[at], tree.left[at])
    return found


def _by_lowest_bit(values: Sequence[float]) -> list[float]:
    """Table of 256: what the lowest bit of a byte stands for; bits beyond the leaves are never the lowest."""
    return [values[min((byte & -byte).bit_length() - 1, len(values) - 1)] if byte else 0.0 for byte in range(256)]


def _walk(tree: Tree, features: Sequence[float]) -> float:
    node = 0
    while (at := tree.feature[node]) >= 0:
        node = tree.left[node] if features[at] <= tree.threshold[node] else tree.right[node]
    return tree.threshold[node]


_FORESTS: dict[int, tuple[Sequence[Tree], _Forest]] = {}
FOREST_COUNT = 8
"""Forests kept; a calibration has one per language."""


def _forest_of(trees: Sequence[Tree]) -> _Forest:
    known = _FORESTS.get(id(trees))  # by identity: to hash a thousand nodes costs more than to walk them
    if known is None or known[0] is not trees:
        while len(_FORESTS) >= FOREST_COUNT:
            del _FORESTS[next(iter(_FORESTS))]
        known = _FORESTS[id(trees)] = trees, _Forest(trees)
    return known[1]


def check_tree(tree: Tree, feature_count: int, place: str) -> None:
    """Whether a tree from a file can be walked: ends, stays inside, holds finite numbers.

    Raises:
        DataError: with the place.
    """
    count = len(tree.feature)
    if not 0 < count <= MAX_NODES or {len(tree.threshold), len(tree.left), len(tree.right)} != {count}:
        raise DataError(f"{place}: {count} nodes with arrays of other lengths; train it anew")
    for node, at in enumerate(tree.feature):
        ends = at == -1
        inside = 0 <= at < feature_count and node < tree.left[node] < count and node < tree.right[node] < count
        if not (ends or inside) or not math.isfinite(tree.threshold[node]):
            raise DataError(f"{place}: node {node} leads nowhere; train it anew")
