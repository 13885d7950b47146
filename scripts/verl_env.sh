#!/usr/bin/env bash
# Make the environment that the verl engine is tested in: `make verl-env`. It is another one than .venv, because verl
# 0.9.1 wants transformers below 5.11.
# PYTHON: an interpreter with pip; VENV: where it goes (.venv-verl). Says what it took in time and disk.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH
venv=${VENV:-.venv-verl}
start=$SECONDS
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# torch by its exact release: an open range may take the CUDA build, which is several GB.
nice -n 15 "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile \
    --constraint constraints-verl.txt torch==2.13.0 --editable '.[verl]' pytest hypothesis
echo "$venv: $((SECONDS - start)) s, $(du -sh "$venv" | cut -f1)"
