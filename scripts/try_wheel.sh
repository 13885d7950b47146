#!/usr/bin/env bash
# Build an sdist and a wheel, install the wheel in a new environment, and use it there: `make wheel`.
# PYTHON: an interpreter with pip. The environment is removed afterwards; sdist and wheel stay in dist/.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf dist
"${PYTHON:-python3}" -m venv "$work/venv"
venv=$work/venv/bin
"$venv/python" -m pip install --quiet build
"$venv/python" -m build --quiet --outdir dist .
"$venv/python" -m pip install --quiet --no-compile --constraint constraints.txt dist/*.whl

cd "$work" # so that nothing is imported from the checkout
"$venv/attnpo" --help > /dev/null
"$venv/attnpo" task --n 4 -o problems.jsonl
test "$(wc -l < problems.jsonl)" = 4
"$venv/attnpo" train --model_name_or_path overthinker --dataset_name task --output_dir run --max_steps 1 \
    --train_problems 8 --eval_problems 8 --per_device_train_batch_size 4 --gradient_accumulation_steps 1 \
    --num_generations 4 --max_completion_length 200 --save_strategy no --report_to none --use_cpu true
"$venv/attnpo" report run -o page.html
test -s page.html
echo "$(ls "$root"/dist): installed, and one training step done"
