"""Cross-fitted measurement of both injection models, beside regular expressions and a linear model on MiniLM."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.safety import sets, train
from guard.safety.hidden import reveal
from guard.safety.injection import sentences_of
from guard.safety.linear import Model

PATTERNS = re.compile(
    r"(?i)ignore (?:all |any )?(?:the |your )?(?:previous|prior|above|earlier) (?:instructions?|prompts?|rules?)"
    r"|disregard (?:all |the |your )?(?:previous|prior|above)|forget (?:everything|all|your)|system prompt|you are now"
    r"|\bDAN\b|developer mode|jailbreak|do anything now|pretend (?:to be|you are)|reveal your|new instructions?:"
    r"|\u5ffd\u7565(?:\u4e4b\u524d|\u4ee5\u4e0a|\u6240\u6709)|\u7cfb\u7d71\u63d0\u793a|\u4f60\u73fe\u5728\u662f"
)
"""The kind of expression that firewalls for prompts publish."""

ATTACKS_PER_ROW = 6
USUAL = ("clinc", "banking77", "wildguard", "piguard NotInject")
"""Harmless questions that set the limits, each set weighing the same: ordinary traffic, and prompts full of trigger
words, because a guard that refuses "how do I ignore whitespace" is switched off by its users."""

RATES = tuple(train.RATES)


@dataclass(slots=True)
class Result:
    """Shares flagged, by what they are of, in the order of `RATES`."""

    model: Model
    caught: dict[str, tuple[int, list[float]]] = field(default_factory=dict)
    flagged: dict[str, tuple[int, list[float]]] = field(default_factory=dict)
    plain: dict[str, float] = field(default_factory=dict)  # regular expressions
    minilm: dict[str, list[float]] = field(default_factory=dict)


def _shares(groups: dict[str, list[float]], limits: Sequence[float]) -> dict[str, tuple[int, list[float]]]:
    return {k: (len(v), [float(np.mean(np.array(v) >= t)) for t in limits]) for k, v in groups.items()}


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def own_chinese() -> list[tuple[str, str, bool]]:
    """(kind, text, attack): pairs of our own, never trained on."""
    return [(r["kind"], r["text"], r["attack"]) for r in sets.rows_of(sets.OWN_PAIRS)]


def questions(data: Path, embed: Callable[[list[str]], np.ndarray] | None) -> Result:
    """Fit, cross-fit and calibrate the question model."""
    texts = sets.questions(data)
    own = [
        sets.Text(f"own zh test ({kind})", text, attack) for kind, text, attack in own_chinese() if kind != "context"
    ]
    table, own_table = train.question_table(texts), None
    folds = np.array([t.fold for t in texts])
    values = np.full(len(texts), np.nan)
    for fold in range(sets.FOLDS):
        mine = folds == fold
        if mine.any():
            values[mine] = train.scores(table, train.fit(table, ~mine))[mine]
    measured = ~np.isnan(values)
    groups: dict[str, list[float]] = defaultdict(list)
    for i in np.flatnonzero(measured):
        if not texts[i].attack:
            groups[texts[i].source].append(values[i])
    usual = [np.array(groups[name]) for name in USUAL if groups[name]]
    model = train.calibrated(train.fit(table, np.ones(len(texts), bool)), usual)
    limits = list(model.thresholds.values())
    result = Result(model)
    attacks: dict[str, list[float]] = defaultdict(list)
    for i in np.flatnonzero(measured):
        if texts[i].attack:
            attacks[texts[i].source].append(values[i])
    harmless = dict(groups)
    if own:
        own_table = _scored_with(own, texts, model)
        for text, value in zip(own, own_table, strict=True):
            (attacks if text.attack else harmless).setdefault(text.source, []).append(value)
    result.caught, result.flagged = _shares(attacks, limits), _shares(harmless, limits)
    every = [t for i, t in enumerate(texts) if measured[i]] + own
    for source in {t.source for t in every}:
        mine_ = [t for t in every if t.source == source]
        for attack in (True, False):
            of = [bool(PATTERNS.search(t.text)) for t in mine_ if t.attack is attack]
            if of:
                result.plain[f"{source} {'attacks' if attack else 'harmless'}"] = float(np.mean(of))
    if embed is not None:
        result.minilm = _minilm_questions(texts, folds, own, embed)
    return result


def _scored_with(own: list[sets.Text], texts: list[sets.Text], model: Model) -> list[float]:
    from guard.safety.injection import question_score

    return [question_score(t.text, model) for t in own]


def _minilm_questions(
    texts: list[sets.Text], folds: np.ndarray, own: list[sets.Text], embed: Callable[[list[str]], np.ndarray]
) -> dict[str, list[float]]:
    """The same folds, logistic regression on sentence embeddings; rows that only train and CLINC thinned."""
    from sklearn.linear_model import LogisticRegression

    many = ("clinc", "banking77")
    kept = [
        i for i in range(len(texts)) if (i % 5 == 0 if folds[i] < 0 else i % 2 == 0 or texts[i].source not in many)
    ]  # fmt: skip
    _say(f"embedding {len(kept)} questions")
    vectors = embed([texts[i].text[:1000] for i in kept] + [t.text for t in own])
    base, more = vectors[: len(kept)], vectors[len(kept) :]
    y = np.array([texts[i].attack for i in kept])
    fold = folds[kept]
    values = np.full(len(kept), np.nan)
    for f in range(sets.FOLDS):
        fitted = LogisticRegression(C=10, max_iter=300, class_weight="balanced").fit(base[fold != f], y[fold != f])
        values[fold == f] = fitted.decision_function(base[fold == f])
    fitted = LogisticRegression(C=10, max_iter=300, class_weight="balanced").fit(base, y)
    groups: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for n, i in enumerate(kept):
        if fold[n] >= 0:
            groups[texts[i].source, texts[i].attack].append(values[n])
    if own:
        for text, value in zip(own, fitted.decision_function(more), strict=True):
            groups[text.source, text.attack].append(value)
    usual = [np.array(groups[name, False]) for name in USUAL if groups[name, False]]
    limits = [_limit(usual, rate) for rate in train.RATES.values()]
    return {
        f"{source} {'attacks' if attack else 'harmless'}": [float(np.mean(np.array(v) >= t)) for t in limits]
        for (source, attack), v in groups.items()
    }


def _limit(groups: list[np.ndarray], rate: float) -> float:
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(g), 1 / len(g) / len(groups)) for g in groups])
    order = np.argsort(-values)
    index = int(np.searchsorted(np.cumsum(weights[order]), rate, side="right"))
    return float(np.nextafter(values[order][min(index, len(values) - 1)], np.inf))


def _matched(texts: list[str]) -> float:
    return float(np.mean([bool(PATTERNS.search(text)) for text in texts])) if texts else 0.0


def contexts(data: Path, embed: Callable[[list[str]], np.ndarray] | None) -> Result:
    """Fit, cross-fit and calibrate the context model. Hosts of the measured attacks were never trained on."""
    pages = sets.training_pages(data)
    _say(f"reading {len(pages)} pages")
    table = train.page_table(pages)
    _say(f"{table.x.shape[0]} sentences")
    folds = np.array([p.fold for p in pages])
    hosts = sets.harmless_pages(data)
    own = [(text, attack) for kind, text, attack in own_chinese() if kind == "context"]
    planted: list[sets.Page] = []
    for n, (category, attack) in enumerate(sets.attacks_for_pages(data)):
        for k in range(ATTACKS_PER_ROW):
            host, where = hosts[(n * 37 + k * 101) % len(hosts)], sets.PLACES[k % 3]
            text = sets.planted(host.text, attack, where)
            fold = sets.fold_of(category)
            planted.append(sets.Page(host.source, text, host.question, attack, fold, where, category))
    chinese = [h for h in hosts if h.source.startswith("drcd")]
    for n, (attack, is_attack) in enumerate(own if chinese else []):
        for k, where in enumerate(sets.PLACES):
            host = chinese[(n * 13 + k) % len(chinese)]
            kind = "own zh attacks" if is_attack else "own zh harmless"
            planted.append(
                sets.Page(host.source, sets.planted(host.text, attack, where), "", attack, n % sets.FOLDS, where, kind)
            )
    measured = hosts + planted
    _say(f"reading {len(measured)} measured pages")
    test = train.page_table(measured)
    # Columns differ between the two tables only where a feature never occurs; scores() goes by name.
    values = np.zeros(len(measured))
    host_fold = np.arange(len(hosts)) % sets.FOLDS
    fold_of_row = np.concatenate([host_fold, [p.fold for p in planted]]).astype(int)
    cross = np.zeros(len(pages))
    for fold in range(sets.FOLDS):
        held = np.array([
            p.fold == fold or (p.category not in ("", "own", "clinc") and sets.fold_of(p.category) == fold)
            for p in pages
        ])  # fmt: skip
        model = train.fit(table, ~held)
        mine = fold_of_row == fold
        values[mine] = train.scores(test, model)[mine]
        cross[folds == fold] = train.scores(table, model)[folds == fold]
        _say(f"fold {fold}")
    harmless: dict[str, list[float]] = defaultdict(list)
    for i, page in enumerate(hosts):
        harmless[page.source].append(values[i])
    seen: dict[str, list[float]] = defaultdict(list)
    for i, page in enumerate(pages):
        if not page.planted:
            seen[page.source].append(cross[i])
    # The limits come from kinds of pages that people have, each weighing the same: encyclopedia, web, forum, news, FAQ.
    names = [name for name in ("ragtruth", "squad2", "drcd zh-TW", "stackfaq") if harmless[name]]
    usual = [np.array(harmless[name]) for name in names]
    usual += [np.array(seen[name]) for name in ("uhgeval", "demo") if seen[name]]
    model = train.calibrated(train.fit(table, np.ones(len(pages), bool)), usual)
    limits = list(model.thresholds.values())
    result = Result(model)
    result.flagged = _shares({**harmless, **{f"{k} (trained on, cross-fitted)": v for k, v in seen.items()}}, limits)
    groups: dict[str, list[float]] = defaultdict(list)
    for page, value in zip(planted, values[len(hosts) :], strict=True):
        if page.category.startswith("own zh"):
            groups[page.category].append(value)
            continue
        for name in ("all", page.where, f"category: {page.category}", f"host: {page.source}"):
            groups[name].append(value)
    result.caught = _shares(groups, limits)
    bipia = [p for p in planted if not p.category.startswith("own zh")]
    result.plain = {
        "all": _matched([p.text for p in bipia]),
        "own zh attacks": _matched([p.text for p in planted if p.category == "own zh attacks"]),
        "harmless": _matched([h.text for h in hosts]),
    }  # fmt: skip
    if embed is not None:
        result.minilm = _minilm_contexts(pages, hosts, bipia, embed)
    return result


def _minilm_contexts(
    pages: list[sets.Page], hosts: list[sets.Page], planted: list[sets.Page], embed: Callable[[list[str]], np.ndarray]
) -> dict[str, list[float]]:
    """Logistic regression on the embedding of each sentence, worst sentence of a page; hosts and attacks thinned."""
    from sklearn.linear_model import LogisticRegression

    train_pages = [p for i, p in enumerate(pages) if i % 6 == 0 or p.category not in ("", "own", "clinc")][::2]
    rows: list[tuple[str, bool, int]] = []
    for page in train_pages:
        if page.planted:
            rows += [(s, True, page.fold) for s in sentences_of(page.planted)]
        else:
            rows += [(s, False, page.fold) for s in sentences_of(page.text)[:6]]
    test_pages = hosts[::3] + planted[::3]
    pieces = [(n, s) for n, page in enumerate(test_pages) for s in sentences_of(page.text)]
    wanted = list(dict.fromkeys([s for s, _, _ in rows] + [s for _, s in pieces]))
    _say(f"embedding {len(wanted)} sentences")
    vectors = dict(zip(wanted, embed([reveal(w).plain[:400] for w in wanted]), strict=True))
    x, y = np.array([vectors[s] for s, _, _ in rows]), np.array([a for _, a, _ in rows])
    fold = np.array([f for _, _, f in rows])
    found = np.full(len(test_pages), -np.inf)
    for f in range(sets.FOLDS):
        fitted = LogisticRegression(C=10, max_iter=300, class_weight="balanced").fit(x[fold != f], y[fold != f])
        mine = [
            n for n, page in enumerate(test_pages) if (page.fold if page.planted else n % sets.FOLDS) == f
        ]  # fmt: skip
        chosen = set(mine)
        own = [(n, s) for n, s in pieces if n in chosen]
        if own:
            for (n, _), value in zip(
                own, fitted.decision_function(np.array([vectors[s] for _, s in own])), strict=True
            ):
                found[n] = max(found[n], value)
    groups: dict[str, list[float]] = defaultdict(list)
    for page, value in zip(test_pages, found, strict=True):
        groups["all" if page.planted else page.source].append(value)
    usual = [np.array(v) for name, v in groups.items() if name != "all"]
    limits = [_limit(usual, rate) for rate in train.RATES.values()]
    return {name: [float(np.mean(np.array(v) >= t)) for t in limits] for name, v in groups.items()}
