"""`attnpo evidence stability`: do the heads stay the same while the model is trained."""

from __future__ import annotations

import argparse

from attnpo.cli.evidence_options import LEAVES, add_common, check_common, score_all_heads

DESCRIPTION = f"""\
Measure the step ranking accuracy of every head in each of several models along a training run, on the same labelled
traces, and correlate it with that in the first. The paper reports a Pearson correlation above 0.85 between before and
after reinforcement learning: heads found once stay good.

{LEAVES}"""

PARSER_OPTIONS = {"description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help="labelled traces, as for `attnpo probe`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", dest="folder", metavar="RUN", help="a run folder: its starting model and checkpoints")
    which.add_argument("--models", metavar="M", nargs="+", help="folders or Hub names, in order; the first is the base")
    parser.add_argument("--top", metavar="N", type=int, default=3, help="heads of the first to follow (default: 3)")
    add_common(parser, model=False)


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError
    from attnpo.heads.figures import draw_stability, print_table, write_evidence
    from attnpo.heads.scores import check_number, load, named_heads, notes, read_file
    from attnpo.heads.stability import check_stages, named, stability_table, stages_of_run
    from attnpo.tables import check_folder

    check_common(args)
    stages = stages_of_run(args.folder) if args.folder else named(args.models)
    if len(stages) < 2:
        raise InputError(f"--models: found {len(stages)}, expected at least 2 to compare")
    check_stages(stages)
    file, folder = read_file(args.input), check_folder(args.output)
    tables, said = [], []
    for stage in stages:
        loaded = load(stage.model)
        check_number("--top", args.top, loaded[0])
        scores = score_all_heads(args, loaded, file, stage.name)
        del loaded  # one model in memory at a time
        tables.append(scores.table)
        said += notes(stage.name, scores)
    table = stability_table(stages, tables, args.top)
    write_evidence(folder, table, draw_stability(table, tables))
    explained = [
        "Pearson: with the first model, over all heads (95 % over problems); before: with the model before",
        f"first's: mean of the {args.top} heads that were best in the first model; kept: how many still are",
    ]
    explained.append(f"best {args.top} in the first model: {named_heads(tables[0].best(args.top))}")
    print_table(
        table, "step ranking accuracy of the heads along the run", [*explained, *said, f"written: {args.output}"]
    )
