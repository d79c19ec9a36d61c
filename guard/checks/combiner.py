"""The trained model of one claim: a logistic part and boosted trees, evaluated in plain Python. Pure.

    probability = 1 / (1 + exp(-(intercept + weights . features + sum of the leaf of each tree)))

Trees are arrays, as they stand in the JSON file: node i asks `features[feature[i]] <= threshold[i]` and goes to
`left[i]` or `right[i]`; a node with feature -1 is a leaf worth `threshold[i]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from slo.errors import DataError

MAX_NODES = 512


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
    total = intercept + sum(w * x for w, x in zip(weights, features, strict=True))
    for tree in trees:
        feature, threshold = tree.feature, tree.threshold
        node = 0
        while (at := feature[node]) >= 0:
            node = tree.left[node] if features[at] <= threshold[node] else tree.right[node]
        total += threshold[node]
    return total


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
