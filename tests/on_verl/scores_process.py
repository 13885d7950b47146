"""Scores of one batch by verl's engine, run by torchrun: `scores_process.py MODEL BATCH OUTPUT`.

BATCH: a file of torch's with "rows" (token ids), "spans" (as the ledger packs them) and "heads".
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from engine_process import SCORES, batch_of, new_engine


def main(model: str, batch: str, output: str) -> None:
    given = torch.load(batch)
    engine = new_engine(model, "packed")
    engine.initialize()
    with engine.eval_mode():
        found = engine.infer_batch(batch_of(given["rows"], given["spans"], "packed", given["heads"], 2000), None)
    torch.save([row.clone() for row in found["model_output"][SCORES].unbind()], output)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(*sys.argv[1:])
    dist.destroy_process_group()
