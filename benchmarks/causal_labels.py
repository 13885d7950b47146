"""Rules that turn likelihood drops into labels, compared with the gold labels of the built-in task's traces.

    python benchmarks/causal_labels.py --traces 100          # one CPU thread: about six minutes

Parameters of the rules are chosen on traces of the train split, figures are of the test split. Because one model gives
little information about others, everything is done with the packaged model and with blurred copies of it, whose weights
are multiplied by 1 + blur · (standard normal noise): they are less confident. A rule's parameter is the one
whose worst balanced accuracy over these models is best.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnpo.heads.table import mean_step_ranking_accuracy, step_ranking_accuracy
from attnpo.labels.causal import SHARE, label_steps, without_endings
from attnpo.labels.hiding import iterate_drops
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.task.dataset import build_dataset
from attnpo.traces.labelled import has_both_kinds
from attnpo.traces.prepared import PreparedTrace, prepare_trace, score_traces

Drops = list[Tensor]  # [S_i] of every trace
Labels = list[Tensor]
NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHARES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Sample:
    """One model's results on the traces of one split; `drops` by what is hidden and how tokens are aggregated."""

    gold: Labels
    drops: dict[str, Drops]
    scores: list[Tensor]  # [H, S_i], every head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=100, help="per split")
    parser.add_argument("--blur", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--seed", type=int, default=5, help="of the problems")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    started = time.perf_counter()
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    network, tokenizer = load_model(resolve_model())
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    for blur in args.blur:
        generator = torch.Generator().manual_seed(0)
        for name, weight in network.state_dict().items():
            noise = torch.randn(weight.shape, generator=generator) if weight.ndim == 2 else torch.zeros(())
            weight.copy_(weights[name] * (1 + blur * noise.to(weight.device)))
        for split, found in samples.items():
            rows = build_dataset(args.traces, seed=args.seed, split=split)
            traces = [prepare_trace(row, tokenizer) for row in rows]
            cut = [without_endings(trace, tokenizer) for trace in traces]
            found.append(measure(network, traces, cut, args.batch_size, whole=split == "test" and not found))
    test = samples["test"]
    steps = torch.cat(test[0].gold)
    print(f"{args.traces} traces per split; test: {len(steps)} steps, {int(steps.sum())} essential\n")
    print_statistics(test[0])
    print_rules(samples["train"], test, args.blur)
    print_mistakes(build_dataset(args.traces, seed=args.seed, split="test"), test[0])
    print(f"\n{time.perf_counter() - started:.0f} s")


def measure(network, traces: list[PreparedTrace], cut: list[PreparedTrace], batch_size: int, *, whole: bool) -> Sample:
    config = network.config
    heads = [(layer, head) for layer in range(config.num_hidden_layers) for head in range(config.num_attention_heads)]
    scores = dict(score_traces(network, traces, heads, batch_size))
    by_token = dict(iterate_drops(network, cut, batch_size))
    places = range(len(traces))
    drops = {
        "sum": [by_token[i].sum(dim=1) for i in places],
        "mean": [by_token[i].mean(dim=1) for i in places],
        "largest token": [by_token[i].amax(dim=1) for i in places],
    }
    if whole:
        of_whole = dict(iterate_drops(network, traces, batch_size))
        drops["sum, line breaks hidden too"] = [of_whole[i].sum(dim=1) for i in places]
    gold = [torch.tensor([step["essential"] for step in trace.steps]) for trace in traces]
    return Sample(gold, drops, [scores[i] for i in places])


def print_statistics(sample: Sample) -> None:
    print("| drop over the answer's tokens | AUC over all steps | pairs within a trace ranked right |")
    print("|---|---|---|")
    for name, drops in sample.drops.items():
        pairs = [
            float(step_ranking_accuracy(drop[None], gold)[0])
            for drop, gold in zip(drops, sample.gold, strict=True)
            if has_both_kinds(gold)
        ]
        area = area_under_curve(torch.cat(drops), torch.cat(sample.gold))
        print(f"| {name} | {area:.3f} | {sum(pairs) / len(pairs):.3f} |")


def print_rules(train: list[Sample], test: list[Sample], blurs: list[float]) -> None:
    """Print every rule with the parameter chosen on the train split, and the default rule unchanged."""
    print("\n| rule | parameter | " + " | ".join(f"blur {blur:g}" for blur in blurs) + " | heads: Spearman |")
    print("|---|---|" + "---|" * len(blurs) + "---|")
    for name, statistic, rule, grid in RULES:

        def worst(value: float, statistic: str = statistic, rule: Callable[[Drops, float], Labels] = rule) -> float:
            return min(balanced_accuracy(rule(s.drops[statistic], value), s.gold) for s in train)

        value = max(grid, key=worst)
        labels = [rule(sample.drops[statistic], value) for sample in test]
        accuracies = [balanced_accuracy(found, sample.gold) for found, sample in zip(labels, test, strict=True)]
        agreement = [head_agreement(found, sample) for found, sample in zip(labels, test, strict=True)]
        shown = f"{value:g}" if len(grid) > 1 else "–"
        columns = " | ".join(f"{accuracy:.3f}" for accuracy in accuracies)
        print(f"| {name} | {shown} | {columns} | {min(agreement):.3f} – {max(agreement):.3f} |")
    labels = [label_steps(drop) for drop in test[0].drops["sum"]]
    found, gold = torch.cat(labels), torch.cat(test[0].gold)
    mixed = sum(has_both_kinds(label) for label in labels)
    essential, redundant = (float(found[which].double().mean()) for which in (gold, ~gold))
    print(
        f"\nDefault rule (share {SHARE:g}), blur {blurs[0]:g}: finds {essential:.3f} of the essential steps, takes "
        f"{redundant:.3f} of the redundant ones for essential; {mixed} of {len(labels)} traces have both kinds of label"
    )


def print_mistakes(rows: list[dict[str, Any]], sample: Sample) -> None:
    """Print the kinds of steps that the default rule mislabels, and whether later steps repeat the result of a missed
    one."""
    wrong: Counter[str] = Counter()
    repeated: dict[bool, list[bool]] = {True: [], False: []}
    for row, drop in zip(rows, sample.drops["sum"], strict=True):
        thinking_end = row["steps"][-1]["end"]
        for step, found in zip(row["steps"], label_steps(drop).tolist(), strict=True):
            if found and not step["essential"]:
                wrong[step["role"]] += 1
            if step["essential"]:
                result = re.findall(r"= (\d+)", row["response"][step["start"] : step["end"]])[-1]
                later = row["response"][step["end"] : thinking_end]
                repeated[found].append(bool(re.search(rf"\b{result}\b", later)))
    print(f"Redundant steps taken for essential: {dict(wrong)}")
    for found, again in repeated.items():
        print(f"Essential steps {'found' if found else 'missed'}: {len(again)}, result repeated later: {sum(again)}")


def otsu(values: Tensor) -> float:
    """Return the threshold that maximises the variance between the two groups."""
    ordered = values.double().sort().values
    count, below = len(ordered), torch.arange(1, len(ordered))
    total = ordered.cumsum(0)
    gap = total[:-1] / below - (total[-1] - total[:-1]) / (count - below)
    cut = int((below * (count - below) * gap**2).argmax())
    return float(ordered[cut] + ordered[cut + 1]) / 2


def logarithmic_otsu(drops: Drops, _: float) -> Labels:
    """Apply Otsu to the logarithms; drops below the usual size of negative ones, which are noise, get that size."""
    every = torch.cat(drops)
    noise = float(every[every < 0].abs().median()) if bool((every < 0).any()) else 1e-6
    cut = otsu(every.clamp(min=noise).log())
    return [drop.clamp(min=noise).log() > cut for drop in drops]


def above(drops: Drops, value: float) -> Labels:
    return [drop > value for drop in drops]


def share_of_largest(drops: Drops, value: float) -> Labels:
    return [label_steps(drop, value) for drop in drops]


RULES: list[tuple[str, str, Callable[[Drops, float], Labels], tuple[float, ...]]] = [
    ("sum above so many nats", "sum", above, NATS),
    ("mean per token above so many nats", "mean", above, tuple(x / 20 for x in NATS)),
    ("largest token above so many nats", "largest token", above, NATS),
    ("share of the trace's largest sum", "sum", share_of_largest, SHARES),
    (f"the same, {SHARE:g} (default)", "sum", share_of_largest, (SHARE,)),
    ("share of the trace's largest token", "largest token", share_of_largest, SHARES),
    ("Otsu, per trace", "sum", lambda drops, _: [drop > otsu(drop) for drop in drops], (0.0,)),
    ("Otsu, whole file", "sum", lambda drops, _: above(drops, otsu(torch.cat(drops))), (0.0,)),
    ("Otsu of logarithms, whole file", "sum", logarithmic_otsu, (0.0,)),
]


def balanced_accuracy(labels: Labels, gold: Labels) -> float:
    found, true = torch.cat(labels), torch.cat(gold)
    return float(found[true].double().mean() + (~found[~true]).double().mean()) / 2


def head_agreement(labels: Labels, sample: Sample) -> float:
    """Return Spearman's correlation, over the heads, between their accuracies with these labels and with gold ones."""
    ranks = []
    for which in (labels, sample.gold):
        accuracy = mean_step_ranking_accuracy(zip(sample.scores, which, strict=True)).accuracy
        ranks.append(((accuracy[:, None] > accuracy).double() + (accuracy[:, None] == accuracy).double() / 2).sum(1))
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def area_under_curve(values: Tensor, gold: Tensor) -> float:
    return float(step_ranking_accuracy(values[None], gold)[0])


if __name__ == "__main__":
    main()
