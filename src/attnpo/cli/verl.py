"""`attnpo verl`: run a training on verl and Ray, for models that do not fit on one machine."""

from __future__ import annotations

import argparse

PARSER_OPTIONS = {
    "usage": "attnpo verl [--config RECIPE.yaml] [--OPTION VALUE …] [verl.key=VALUE …] [--check]",
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": """\
options of this package, as of `attnpo train` (docs/verl.md, docs/methods.md)
  --output_dir DIR         the run folder, on a disk shared by all nodes (default: attnpo-verl)
  --advantage              rloo (default), grpo, dr_grpo
  --length_reward          tlmre (default), none, kimi, laser, laser_d, overlong, shorterbetter, thinkprune
    --length_alpha --length_kwargs
  --credit                 attnpo (default), outcome, first_correct, or your own
    --credit_kwargs --credit_module
    --credit_beta --credit_lambda --credit_delta --credit_delay --credit_positive --credit_negative
    --credit_difficulty --credit_yardstick --credit_threshold --credit_sharp
  --heads HEADS.json|auto  key-focus heads; default: heads.json in the model's folder, else auto (found first, by one
                           worker)
    --heads_count --heads_traces
  --thinking_format --lexicon
  --dataset_name D         'task', a file or a Hub data set; without it verl's data.train_files and data.val_files
    --dataset_config --dataset_train_split --eval_dataset_name --dataset_test_split
    --train_problems --eval_problems --task_difficulty --task_redundancy --task_seed
    --problem_column --reference_column --system_prompt --prompt_template
  --correct_threshold --verifier_timeout --record_rollouts
  --resume true            resume from the last checkpoint; --overwrite_run true: start anew
  --max_completion_length  is verl's data.max_response_length

keys of verl's configuration have dots in their names; a new key starts with +
examples
  attnpo verl --config recipes/verl/tiny-cpu.yaml
  attnpo verl --config recipes/verl/qwen3-1.7b-8gpu.yaml --dataset_name problems.jsonl trainer.total_training_steps=50
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="RECIPE.yaml", help="a recipe with the sections attnpo and verl")
    parser.add_argument("--check", action="store_true", help="check everything and stop before Ray starts")
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    from attnpo.engines.verl.launch import main

    argv = [*args.rest, *(["--check"] if args.check else [])]
    if args.config is not None:
        argv = ["--config", args.config, *argv]
    print(f"run folder: {main(argv)}")
