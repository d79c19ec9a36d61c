#!/bin/sh
# vLLM with two adapters over one base model, and the inference guards of `sft-guard lora serve`.
# BASE, ADAPTERS, HOST and PORT may be set.
set -eu
adapters=${ADAPTERS:-/run/adapters}
exec vllm serve "${BASE:-Qwen/Qwen2.5-1.5B-Instruct}" \
  --served-model-name base \
  --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}" \
  --enable-lora --max-loras 4 --max-lora-rank 32 \
  --lora-modules "hr-rules-v3=$adapters/hr-rules-v3" "hr-rules-v4=$adapters/hr-rules-v4" \
  --override-generation-config '{"temperature": 0.1, "max_new_tokens": 500, "repetition_penalty": 1.1}'
