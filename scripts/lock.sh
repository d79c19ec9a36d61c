#!/bin/sh
# Writes the locks of the image, every wheel with its hashes, versions as in constraints.txt. Needs uv.
#   deploy/requirements.lock   what runs;   deploy/build.lock   what compiles the data path, in the build stage alone
#   sh scripts/lock.sh            run it after a change of dependencies; a test says when it is due
set -eu
cd "$(dirname "$0")/.."
printf 'setuptools>=77\n' > /tmp/sft-guard-build.in
uv pip compile pyproject.toml /tmp/sft-guard-build.in --extra redis --extra postgres --extra otel --extra analysis --extra kb \
    --constraint constraints.txt --generate-hashes --no-annotate --no-header --quiet \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --output-file deploy/requirements.lock
printf 'mypy\n' > /tmp/sft-guard-build.in
uv pip compile /tmp/sft-guard-build.in --constraint constraints.txt --constraint deploy/requirements.lock --generate-hashes \
    --no-annotate --no-header --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --output-file deploy/build.lock
rm -f /tmp/sft-guard-build.in
