"""A small cross-encoder for grounding, trained from all-MiniLM-L6-v2 and measured beside the combiner.

python -m bench.crossencoder.pairs --out DIR     # claims with the context sentences that speak of them, as tokens
python bench/crossencoder/train.py --data DIR/pairs.npz --weights DIR/minilm.npz --out DIR    # needs torch only
python -m bench.crossencoder.report --scores DIR --write    # the section of docs/accuracy.md
"""
