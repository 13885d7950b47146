#!/usr/bin/env bash
# Make an environment next to .venv, for tests of an engine that needs other releases (`make verl-env`, `make vllm-env`):
#     scripts/second_env.sh FOLDER CONSTRAINTS REQUIREMENT…
# PYTHON: an interpreter with pip. Prints the time it took.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH
venv=$1 constraints=$2
shift 2
start=$SECONDS
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# torch by its exact release: an open range may take the CUDA build, which is several GB.
nice -n 15 "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile \
    --constraint "$constraints" torch==2.13.0 pytest hypothesis "$@"
echo "$venv: $((SECONDS - start)) s"
