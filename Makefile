# Two commands matter: `make run` and `make test`. Both set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := guard exporters alerts dashboards slo registry rag lora
STAMP := .venv/.setup-stamp
RUN_STAMP := .venv/.run-stamp
MAKE_VENV = $(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "sft-guard needs Python 3.11 or newer, this is " + sys.version.split()[0])' \
	&& { test -x $(BIN)/python || $(PYTHON) -m venv .venv; }
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: lora-train-long setup run compile uncompile test lint types arch golden format cache-model bench-cache bench-checks bench-safety bench-proxy bench-drift bench-verdicts bench-baseline scenarios sim screenshots bench-console bench-lora-serve bench-checks-speed bench-kb kb-integrity debian clean audit

setup: $(STAMP)  ## create .venv with everything the program and the tests need

# One pip call: torch is pinned in constraints.txt and must be chosen together with what needs it.
$(STAMP): pyproject.toml constraints.txt
	$(MAKE_VENV)
	@echo "setting up .venv: some minutes and 2.2 GB the first time"
	$(PIP_INSTALL) "torch==2.13.0" -e ".[embeddings,analysis,kb,redis,postgres,otel,dashboards,lora,ft,dev]"
	touch $(STAMP)

# What `run` needs and no more: no torch, nothing of the tests. A complete .venv is used as it is.
$(RUN_STAMP): pyproject.toml constraints.txt
	$(MAKE_VENV)
	@if test -e $(STAMP); then $(MAKE) setup; else \
	  echo "setting up .venv to run: less than a minute and 200 MB the first time"; $(PIP_INSTALL) -e .; fi
	touch $(RUN_STAMP)

run: $(RUN_STAMP)  ## knowledge base, answer path, guard and admin listener, all on loopback; light set-up without torch
	$(BIN)/sft-guard demo

compile: setup  ## the data path as machine code beside its sources (a fifth less processor time there); needs gcc; `make uncompile` goes back
	$(BIN)/python -m guard.compiling build

uncompile: setup
	$(BIN)/python -m guard.compiling remove

test: setup  ## all tests; those that need a Debian package skip with a reason where it is missing
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

arch: setup  ## layer contracts
	$(BIN)/lint-imports

golden: setup  ## rewrite the files that tests compare with (review the diff)
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden

cache-model: setup  ## random histories against the cache: every hit held against the truth (STEPS=1000000)
	$(BIN)/python -m bench.cache_model --steps $(or $(STEPS),1000000) --redis-steps $(or $(REDIS_STEPS),50000)

bench-cache: setup  ## the answer cache: money saved, a release with and without warming, the gate, hits against direct
	$(BIN)/python -m bench.cache

bench-safety: setup  ## train and measure the safety signals on the development sets (DATA=DIR), writes the models and docs/accuracy.md
	$(BIN)/python -m bench.safety --write $(if $(DATA),--data $(DATA))

bench-drift: setup  ## how soon a shift of a tenth of the questions is found, and false alarms (DATA=DIR); writes docs/accuracy.md
	.venv/bin/python -m bench.drift --data $(or $(DATA),../shared/data) --seeds 8 --runs 60 --write

bench-verdicts: setup  ## how right verdicts are and what they cost, by simulation with seeds; QUICK=1 for small sizes
	$(BIN)/python -m bench.verdicts --seed $(or $(SEED),1) $(if $(QUICK),--quick)

bench-checks: setup  ## accuracy of the grounding check into docs/accuracy.md (needs the evaluation sets)
	$(BIN)/python -m bench.checks --write

bench-proxy: setup  ## the guard beside nginx, haproxy, LiteLLM and Portkey on one core; what each layer costs
	$(BIN)/python -m bench.proxy_peers $(PEERS)
	$(BIN)/python -m bench.proxy_ladder

SEEDS ?= 20
scenarios: setup  ## incidents and release conditions with and without the fault, SEEDS histories each
	$(BIN)/python -m tests.scenarios --seeds $(SEEDS)

sim: SEEDS = 100000
JOBS ?= 2
sim: setup  ## rollbacks in a simulated fleet: SEEDS random schedules, every one and two crashes, mutants, replays
	$(BIN)/python -m tests.sim --crashes 1
	$(BIN)/python -m tests.sim --crashes 2
	$(BIN)/python -m tests.sim --mutants
	$(BIN)/python -m tests.sim --replay 1000
	$(BIN)/python -m tests.sim --seeds $(SEEDS) --jobs $(JOBS)

bench-baseline: setup  ## baseline collect and slo replay against size, up to ROWS (default 100 million, 6 GB of disk while it runs)
	$(BIN)/python -m bench.baseline $(if $(ROWS),--rows $(ROWS))
	$(BIN)/python -m bench.replay $(if $(ROWS),--rows $(ROWS))

bench-checks-speed: setup  ## answers checked per second on one core, tier by tier; the proxy's latency meanwhile
	$(BIN)/python -m bench.throughput
	$(BIN)/python -m bench.throughput --proxy

screenshots: setup  ## pictures of the console from a running incident demo, into docs/images
	$(BIN)/python -m tests.console_pictures docs/images

bench-kb: setup  ## knowledge base of 10,000 to 1 million documents: adding, starting, searching, memory, recall (3 GB of disk, 20 minutes)
	$(BIN)/python -m bench.kb $(if $(SIZES),--sizes $(SIZES))

kb-integrity: setup  ## 10,000 flipped bits, every truncation at 1 KiB steps, two writers of 1,000 generations each
	$(BIN)/python -m tests.kb_integrity --flips 10000 --writes 1000

bench-lora-serve: setup  ## requests a second of `lora serve` with and without batches, one adapter and three, against generate
	$(BIN)/python -W ignore -m bench.lora_serve

bench-console: setup  ## first paint, update cost and memory of the console
	$(BIN)/python -m bench.console

# The two tools live in a place of their own: they are not part of the program, nor of its tests.
audit:  ## bill of materials (CycloneDX) and known vulnerabilities of every pinned wheel
	test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet --disable-pip-version-check "pip-audit==2.10.1" "cyclonedx-bom==7.5.0"; }
	.venv/audit/bin/python scripts/audit.py

.PHONY: faults fuzz soak bench-limits
bench-limits: setup  ## cancelled requests, slow clients, idle connections, overload: what they cost the others
	$(BIN)/python -m bench.limits

fuzz: setup  ## RUNS inputs per parser of bytes from outside (default 100,000; a release: 1000000), then the admin API by its OpenAPI
	$(PIP_INSTALL) "torch==2.13.0" -e ".[fuzz]"
	nice $(BIN)/python -m tests.fuzz --runs $(or $(RUNS),100000)
	nice $(BIN)/python -m tests.fuzz.admin_api

soak: setup  ## MINUTES (default 30; a release: 1440) at 60 % of capacity with mixed faults: memory, descriptors, tasks
	nice $(BIN)/python -m bench.soak --minutes $(or $(MINUTES),30)

faults: setup  ## every test of the fault table, 20,000 mutated streams (STREAMS=) against nginx and haproxy, each dependency dead alone; writes docs/reliability.md
	$(BIN)/python -m tests.faults --requests $(or $(REQUESTS),1000) --streams $(or $(STREAMS),20000)

lora-train-long: setup  ## failures of training provoked and named, forgetting with and without replay (five seeds, minutes)
	$(BIN)/python -m bench.lora --failures --forgetting --seeds $(or $(SEEDS_LORA),5)

debian:  ## redis-server, prometheus, promtool, alertmanager, chromium, nginx, haproxy for the tests that use real ones
	sh scripts/install-debian.sh

clean:
	rm -rf .venv build dist *.egg-info
