"""`python bench/crossencoder/train.py`: fine-tune all-MiniLM-L6-v2 to read claim and context together.

Reads what `python -m bench.crossencoder.pairs` wrote and imports nothing of the project, so it runs where torch and
numpy are. Jobs: `out:SET` trains without a set (and without near misses made from its contexts) and scores it; `fold:K`
trains without a third of the sources of every set and scores those; `final` trains on everything. Word vectors stay as
they are: few words of a language stand in these sets. Writes scores of claims per job and the weights of `final` in
float16, in two parts.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as f

CLS, SEP = 101, 102
SETS = ("ragtruth", "begin", "factscore", "squad", "near-miss")
CLAIM, WHOLE, EDIT, QUESTION = range(4)
TOKENS_PER_BATCH = 16_384
HEADS = 12


class Layer(nn.Module):
    """One layer of BERT."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.out_norm = nn.LayerNorm(dim, eps=1e-12)
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        self.down_norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, drop: float) -> torch.Tensor:
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        seen = f.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop if self.training else 0.0)
        seen = self.out(seen.transpose(1, 2).reshape(batch, length, dim))
        x = self.out_norm(x + f.dropout(seen, drop, self.training))
        inner = self.down(f.gelu(self.up(x)))
        return self.down_norm(x + f.dropout(inner, drop, self.training))


class CrossEncoder(nn.Module):
    """[CLS] claim [SEP] context [SEP] -> logit of being unsupported, from CLS, mean and maximum over the claim."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        as_tensor = {k: torch.from_numpy(v.astype(np.float32)) for k, v in weights.items()}
        words = as_tensor["words"] * as_tensor["words_scale"]
        self.register_buffer("words", words, persistent=False)
        dim = words.shape[1]
        self.positions = nn.Parameter(as_tensor["embeddings.position_embeddings.weight"])
        self.types = nn.Parameter(as_tensor["embeddings.token_type_embeddings.weight"])
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        count = 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("encoder.layer."))
        inner = weights["encoder.layer.0.intermediate.dense.weight"].shape[0]
        self.layers = nn.ModuleList(Layer(dim, inner) for _ in range(count))
        self.head = nn.Linear(3 * dim, 1)
        with torch.no_grad():
            self._adopt(as_tensor)
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def _adopt(self, w: dict[str, torch.Tensor]) -> None:
        self.norm.weight.copy_(w["embeddings.LayerNorm.weight"])
        self.norm.bias.copy_(w["embeddings.LayerNorm.bias"])
        for i, layer in enumerate(self.layers):
            at = f"encoder.layer.{i}."
            for kind in ("weight", "bias"):
                qkv = [w[f"{at}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                getattr(layer.qkv, kind).copy_(torch.cat(qkv))
                getattr(layer.out, kind).copy_(w[f"{at}attention.output.dense.{kind}"])
                getattr(layer.out_norm, kind).copy_(w[f"{at}attention.output.LayerNorm.{kind}"])
                getattr(layer.up, kind).copy_(w[f"{at}intermediate.dense.{kind}"])
                getattr(layer.down, kind).copy_(w[f"{at}output.dense.{kind}"])
                getattr(layer.down_norm, kind).copy_(w[f"{at}output.LayerNorm.{kind}"])

    def encode(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor, drop: float = 0.1) -> torch.Tensor:
        """Vectors of the last layer, shape (batch, length, dim)."""
        x = f.embedding(ids, self.words) + self.positions[: ids.shape[1]] + self.types[types]
        x = f.dropout(self.norm(x), drop, self.training)
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :], drop)
        return x

    def forward(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.encode(ids, types, mask)
        claim = (mask & (types == 0))[..., None]
        claim[:, 0] = False  # CLS has a place of its own
        mean = (x * claim).sum(1) / claim.sum(1)
        top = x.masked_fill(~claim, -1e4).amax(1)
        return self.head(f.dropout(torch.cat((x[:, 0], mean, top), 1), 0.1, self.training)).squeeze(1)


class Data:
    """Pairs as they were written, with batches of alike lengths."""

    def __init__(self, path: Path) -> None:
        loaded = np.load(path)
        self.tokens = loaded["tokens"].astype(np.int64)
        self.starts = loaded["starts"]
        self.bad, self.set, self.origin = loaded["bad"], loaded["set"], loaded["origin"]
        self.row, self.claim_index, self.fold = loaded["row"], loaded["claim_index"], loaded["fold"]
        self.length = (self.starts[2::2] - self.starts[:-1:2]) + 3

    def batches(self, chosen: np.ndarray, rng: np.random.Generator | None, size: int) -> list[np.ndarray]:
        """Indices per batch: at most `size` pairs and `TOKENS_PER_BATCH` padded tokens. rng: shuffle."""
        noise = rng.integers(0, 24, len(chosen)) if rng is not None else 0
        order = chosen[np.argsort(self.length[chosen] + noise, kind="stable")]
        found, begin = [], 0
        while begin < len(order):
            end = min(begin + size, len(order))
            while end - begin > 1 and (end - begin) * int(self.length[order[begin:end]].max()) > TOKENS_PER_BATCH:
                end -= 1
            found.append(order[begin:end])
            begin = end
        if rng is not None:
            rng.shuffle(found)
        return found

    def tensors(self, batch: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids, types (0 claim, 1 context) and mask; length rounded up to 32."""
        width = -(-int(self.length[batch].max()) // 32) * 32
        ids = np.zeros((len(batch), width), dtype=np.int64)
        types = np.zeros_like(ids)
        mask = np.zeros(ids.shape, dtype=bool)
        for i, pair in enumerate(batch):
            a, b, c = self.starts[2 * pair : 2 * pair + 3]
            context, claim = self.tokens[a:b], self.tokens[b:c]
            row = np.concatenate(([CLS], claim, [SEP], context, [SEP]))
            ids[i, : len(row)] = row
            types[i, len(claim) + 2 : len(row)] = 1
            mask[i, : len(row)] = True
        return tuple(torch.from_numpy(x).to(device, non_blocking=True) for x in (ids, types, mask))  # type: ignore[return-value]


def split(data: Data, job: str) -> tuple[np.ndarray, np.ndarray]:
    """(trained on, scored), as indices. `+real` at the end of a job leaves the made pairs out of training."""
    name, _, flavour = job.partition("+")
    mine = data.set != SETS.index("near-miss")
    scored = data.set == SETS.index("near-miss")
    kind, _, of = name.partition(":")
    if kind == "out":
        held = data.set == SETS.index(of)
    elif kind == "fold":
        held = (data.fold == int(of)) & (data.set != SETS.index("squad"))
    else:
        held = np.zeros(len(mine), dtype=bool)
    train = mine & ~held & ~((data.origin == CLAIM) & (data.claim_index < 0))
    if "real" in flavour:
        train &= data.origin <= WHOLE
    if "noqa" in flavour:
        train &= data.origin != QUESTION
    scored = (scored | (held & mine)) & (data.origin == CLAIM)
    return np.flatnonzero(train), np.flatnonzero(scored)


def pair_weights(data: Data, train: np.ndarray) -> np.ndarray:
    """Sets weigh by the root of their size; made pairs half."""
    key = data.set.astype(np.int64) * 8 + data.origin
    weight = np.zeros(len(key), dtype=np.float32)
    for k in np.unique(key[train]):
        mine = train[key[train] == k]
        weight[mine] = len(mine) ** -0.5 * (0.5 if k % 8 in (EDIT, QUESTION) else 1.0)
    weight[train] *= len(train) / weight[train].sum()
    return weight


def work(job: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one model, score, write."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    device = "cuda" if torch.cuda.is_available() and not args.cpu else "cpu"
    data = Data(args.data)
    train, scored = split(data, job)
    if args.tiny:
        train, scored = rng.permutation(train)[: args.tiny], scored[: args.tiny]
    weights = dict(np.load(args.weights).items())
    model = CrossEncoder(weights).to(device)
    flavour = job.partition("+")[2]
    rate = float(flavour.split("lr")[1].split(".")[0]) * 1e-5 if "lr" in flavour else args.rate
    epochs = args.epochs * (2 if "real" in flavour else 1)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=rate,
        fused=device == "cuda",
    )  # fmt: skip
    plan = [b for _ in range(epochs) for b in data.batches(train, rng, args.batch)]
    warm = max(1, int(0.08 * len(plan)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, max(0.0, (len(plan) - s) / max(1, len(plan) - warm)))
    )
    weight = pair_weights(data, train)
    began, losses = time.perf_counter(), []
    model.train()
    for step, batch in enumerate(plan):
        if time.perf_counter() - began > args.job_seconds:
            raise TimeoutError(f"{job}: {step} of {len(plan)} steps in {args.job_seconds} s")
        ids, types, mask = data.tensors(batch, device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = model(ids, types, mask)
        target = torch.from_numpy(data.bad[batch].astype(np.float32)).to(device)
        loss = f.binary_cross_entropy_with_logits(
            logits.float(), target * 0.96 + 0.02, weight=torch.from_numpy(weight[batch]).to(device)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            losses.append(round(loss.detach().item(), 4))
            print(
                f"{job}: step {step} of {len(plan)}, loss {losses[-1]}, {time.perf_counter() - began:.0f} s", flush=True
            )
    trained_s = time.perf_counter() - began
    model.eval()
    logits_of = np.full(len(data.bad), np.nan, dtype=np.float32)
    with torch.inference_mode():
        for batch in data.batches(scored, None, 256):
            ids, types, mask = data.tensors(batch, device)
            logits_of[batch] = model(ids, types, mask).float().cpu().numpy()
    name = job.replace(":", "-").replace("+", "-")
    np.savez_compressed(args.out / f"scores-{name}.npz", pair=scored.astype(np.int32), logit=logits_of[scored])
    if job.startswith("final") and args.keep:
        tensors = [(k, v.detach().half().cpu().numpy()) for k, v in model.state_dict().items()]
        half = 0
        total = sum(v.nbytes for _, v in tensors)
        parts: list[dict[str, np.ndarray]] = [{}, {}]
        for k, v in tensors:
            parts[0 if half < total / 2 else 1][k] = v
            half += v.nbytes
        for i, part in enumerate(parts):
            np.savez(args.out / f"final-{i}.npz", **part)
    found = {"job": job, "steps": len(plan), "pairs": len(train), "seconds": round(trained_s, 1), "losses": losses[-3:]}
    for set_at, set_name in enumerate(SETS):
        mine = scored[(data.set[scored] == set_at) & (data.claim_index[scored] >= 0)]  # claims whose label is known
        if 0 < data.bad[mine].sum() < len(mine):
            found[f"auroc_{set_name}"] = round(auroc(data.bad[mine], logits_of[mine]), 4)
    return found


def auroc(bad: np.ndarray, score: np.ndarray) -> float:
    """Area under the curve by ranks; ties count half."""
    order = np.unique(score, return_inverse=True)[1]
    ranks = (np.cumsum(np.bincount(order)) - (np.bincount(order) - 1) / 2)[order]
    count = int(bad.sum())
    return float((ranks[bad == 1].sum() - count * (count + 1) / 2) / (count * (len(bad) - count)))


def _entry(job: str, args: argparse.Namespace) -> dict[str, Any]:
    if time.monotonic() > args.start_until:
        return {"job": job, "skipped": "no time left"}
    try:
        return work(job, args)
    except Exception as error:  # one job that breaks takes none of the others with it
        return {"job": job, "error": f"{type(error).__name__}: {error}"}


JOBS = "out:ragtruth,out:factscore,out:begin,final,fold:0,fold:1,fold:2"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python bench/crossencoder/train.py", description="fine-tune the cross-encoder"
    )
    parser.add_argument("--data", type=Path, required=True, help="pairs.npz")
    parser.add_argument("--weights", type=Path, required=True, help="minilm.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for scores, metrics and weights")
    parser.add_argument("--jobs", default=JOBS, help=f"which models, with commas (default {JOBS})")
    parser.add_argument("--workers", type=int, default=1, help="models trained at the same time")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the pairs")
    parser.add_argument("--batch", type=int, default=64, help="pairs a step")
    parser.add_argument("--rate", type=float, default=1e-4, help="largest learning rate")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no model after this")
    parser.add_argument("--job-seconds", type=float, default=1e9, help="give a model up after this")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of each model")
    parser.add_argument("--seed", type=int, default=0, help="of order and dropout")
    parser.add_argument("--tiny", type=int, default=0, help="only so many pairs, for a trial")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    parser.add_argument("--keep", action="store_true", help="write the weights of `final`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.start_until = time.monotonic() + args.seconds
    began = time.perf_counter()
    jobs = [j for j in args.jobs.split(",") if j]
    found = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(args.workers, len(jobs)), maxtasksperchild=1) as pool:
        waiting = [pool.apply_async(_entry, (job, args)) for job in jobs]
        for one in waiting:
            found.append(one.get())
            print(json.dumps(found[-1]), flush=True)
            (args.out / "metrics.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - began:.0f} s in all; {math.ceil(sum('error' in x for x in found))} failed")
    return int(any("error" in x for x in found))


if __name__ == "__main__":
    raise SystemExit(main())
