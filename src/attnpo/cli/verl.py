"""`attnpo verl`: a training run on verl and Ray, for models that outgrow one machine."""

from __future__ import annotations

import argparse

PARSER_OPTIONS = {
    "usage": "attnpo verl [--config RECIPE.yaml] [--OPTION VALUE …] [verl.key=VALUE …] [--check]",
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": """\
options of this package, as of `attnpo train` (docs/verl.md, docs/methods.md)
  --output_dir DIR         the run folder, on a disk that all nodes see (default: attnpo-verl)
  --advantage              rloo (default), grpo, dr_grpo
  --length_reward          tlmre (default), none, kimi, laser, laser_d, overlong, shorterbetter, thinkprune
    --length_alpha --length_kwargs
  --credit                 attnpo (default), outcome, first_correct, or one of your own
    --credit_kwargs --credit_module
    --credit_beta --credit_lambda --credit_delta --credit_delay --credit_positive --credit_negative
    --credit_difficulty --credit_yardstick --credit_threshold --credit_sharp
  --heads HEADS.json|auto  key-focus heads; default: heads.json beside the model, else auto (found first, on one worker)
    --heads_count --heads_traces
  --thinking_format --lexicon
  --dataset_name D         'task', a file or a Hub data set; without it verl's data.train_files and data.val_files
    --dataset_config --dataset_train_split --eval_dataset_name --dataset_test_split
    --train_problems --eval_problems --task_difficulty --task_redundancy --task_seed
    --problem_column --reference_column --system_prompt --prompt_template
  --correct_threshold --verifier_timeout --record_rollouts
  --resume true            go on after the last checkpoint; --overwrite_run true: begin anew
  --max_completion_length  is verl's data.max_response_length

keys of verl's configuration have dots in their names; one that is to be added begins with +
examples
  attnpo verl --config recipes/verl/tiny-cpu.yaml
  attnpo verl --config recipes/verl/qwen3-1.7b-8gpu.yaml --dataset_name problems.jsonl trainer.total_training_steps=50
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="RECIPE.yaml", help="a recipe with the sections attnpo and verl")
    parser.add_argument("--check", action="store_true", help="stop before Ray starts, when everything has been checked")
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    from attnpo.engines.verl.launch import main

    argv = [*args.rest, *(["--check"] if args.check else [])]
    if args.config is not None:
        argv = ["--config", args.config, *argv]
    print(f"run folder: {main(argv)}")
