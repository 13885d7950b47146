"""`attnpo evidence stability`: do the heads stay the same while the model is trained."""

from __future__ import annotations

import argparse

from attnpo.cli.evidence_options import LEAVES, add_common, check_common, progress_bar

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
    parser.add_argument("--top", metavar="N", type=int, default=3, help="heads of the first model to follow (3)")
    add_common(parser, model=False)


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from attnpo.errors import InputError
    from attnpo.evidence.figures import draw_stability
    from attnpo.evidence.output import check_folder, print_table, write_evidence
    from attnpo.evidence.probing import load, read_file, score_file
    from attnpo.evidence.stability import Stage, split_half, stability_table, stages_of_run

    check_common(args)
    stages = stages_of_run(args.folder) if args.folder else [Stage(Path(name).name, name) for name in args.models]
    if len(stages) < 2:
        raise InputError(f"--models: found {len(stages)}, expected at least 2 to compare")
    file, folder = read_file(args.input), check_folder(args.output)
    tables = []
    for stage in stages:
        with progress_bar(stage.name) as progress:
            loaded = load(stage.model)
            options = {"batch_size": args.batch_size, "max_length": args.max_length, "progress": progress}
            tables.append(score_file(loaded, file, **options).table)
    table = stability_table(stages, tables, args.top)
    write_evidence(folder, table, draw_stability(table, tables))
    halves = split_half(tables[0])
    notes = [f"{tables[0].traces} traces."]
    if halves is not None:
        notes.append(f"Two halves of the traces on the first model correlate at {halves:.3f}: what chance alone takes.")
    print_table(table, "heads along the run", notes)
