"""Train a small over-thinking model that is shipped with the package, on newly generated traces.

    python scripts/train_overthinker.py --out /tmp/overthinker           # from scratch: the model with short traces
    python scripts/train_overthinker.py --out /tmp/overthinker-long --start overthinker --redundancy 30 \\
        --sentences many --context 4096 --steps 400 --batch 12 --lr 1.5e-3 --warmup 20    # from that model: long traces

Writes OUT/model.safetensors, config.json, generation_config.json, the tokeniser, heads.json and
training_record.json, and OUT.examples.json next to the folder. Minutes on one GPU; hours on a CPU. The defaults are the
size and number of steps of the shipped model; its training_record.json has all of its arguments.
"""

from __future__ import annotations

import argparse
import math

from attnpo.task.traces import TraceStyle


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--start", metavar="MODEL", help="a model to start from, tokeniser included (default: none)")
    parser.add_argument("--redundancy", type=float, help="mean number of redundant steps per trace")
    parser.add_argument("--sentences", choices=("few", "many"), default="few", help="templates per kind of step")
    parser.add_argument("--context", type=int, default=1024, help="positions that the model is declared for")
    parser.add_argument("--steps", type=int, default=4300)
    parser.add_argument("--max-seconds", type=float, default=math.inf, help="shorten the schedule to end by then")
    parser.add_argument("--log-steps", type=int, default=100, help="steps between points of the loss curve")
    parser.add_argument("--batch", type=int, default=96, help="traces per step")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--feed-forward", type=int, default=480)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--key-heads", type=int, default=5)
    parser.add_argument("--sink", type=float, default=6.0, help="logit of the attention sink at the start (0: none)")
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--difficulty", type=int, nargs=2, default=(1, 5), help="of the training stories")
    parser.add_argument("--error-rate", type=float, default=TraceStyle.error_rate)
    parser.add_argument("--check-rate", type=float, default=TraceStyle.check_rate)
    parser.add_argument("--essential-weight", type=float, default=1.0, help="of essential tokens in the loss")
    parser.add_argument("--workers", type=int, default=2, help="processes that write traces (0: none)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on a CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluation-problems", type=int, default=1024)
    parser.add_argument("--probe-traces", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    # Not at the top: the worker processes import this file again, and do not need torch.
    from overthinker_training import train_and_measure

    train_and_measure(arguments)
