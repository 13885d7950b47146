"""`attnpo train`: run a training."""

from __future__ import annotations

import argparse

PARSER_OPTIONS = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": """\
the three choices (independent of each other)
  --advantage      rloo (default), grpo, dr_grpo
  --length_reward  tlmre (default), none, kimi, l1_exact, l1_max, laser, laser_d, overlong, shorterbetter, thinkprune
  --credit         attnpo (default), outcome, shape, mrt, iop, first_correct
  plain RLOO = rloo + none + outcome; TLMRE = rloo + tlmre + outcome; AttnPO = rloo + tlmre + attnpo

options of the credit methods (docs/methods.md), e.g. --credit_kwargs '{"segments": 4, "rollouts": 4}'
  shape segments cuts quantile threshold rollouts closing rollout_tokens rollout_batch share_prefixes alpha
    gamma_min reference_length fixed_discount token_weights beta weight_min weight_max
  mrt segments cuts quantile threshold rollouts closing rollout_tokens rollout_batch share_prefixes alpha
    progress
  iop candidates max_repairs anchor prompt max_new_tokens max_prompt_tokens audit judge judge_api_key_env
    judge_cache truncate lambda_edit lambda_rep wrong_weight repaired_weight row_limit
  first_correct keep positive negative place
  attnpo has separate options: --credit_beta, --credit_lambda, --credit_delta, --credit_delay
  --credit_module M         Python modules (with commas) that register your own methods or length rewards

options of the length rewards (docs/methods.md), e.g. --length_kwargs '{"limits": [400, 300], "steps": 10}'
  tlmre alpha   kimi weight warmup_steps   l1_exact alpha low high   l1_max alpha low high delta
  laser alpha target   laser_d alpha low interval update_every   overlong max_length cache
  shorterbetter alpha beta   thinkprune limits steps
  --length_alpha A          alpha of those that have one; --length_eval_target N: length that L1 requests in evaluations

common options
  --model_name_or_path M   any causal LM of transformers; default: the small model shipped with the package
  --heads HEADS.json|auto  its key-focus heads; default: heads.json in its folder, else auto (found before training)
  --thinking_format F      how the model marks its thinking: auto (default: by its tokenizer), deepseek_r1,
                           qwen3, openai_gptoss, mistral, … or a YAML file (docs/thinking-formats.md)
  --dataset_name D         'task' (built in, default), a .jsonl/.parquet/.csv file, or a Hub data set
  --task_redundancy R      of the built-in task: redundant steps per trace, and the shipped model that writes about as
                           many if no model is named: 5 (default), 12 or 30 (docs/law.md)
  --eval_dataset_name D    held-out problems, evaluated before and after (default: none; task: its own)
  --output_dir DIR         the run folder (default: trainer_output)
  --max_steps N, --learning_rate X, --num_generations G, --max_completion_length N, --eval_steps N, --seed S
  --per_device_train_batch_size N --gradient_accumulation_steps N   responses per update (default: of 16 problems)
  --use_peft true          train LoRA adapters (learning rate then 2e-5 by default, else 2e-6)
  --reward_funcs M:F …     your own reward functions; a response is right if --correct_reward NAME is at least
                           --correct_threshold (1)
  --patience N             stop after this number of batches without signal (10)
  --credit_beta 2 --credit_lambda 2 --credit_delta 0 --credit_delay T   β, λ, δ, T of the method (T: half of the run)
  --credit_sharp true, --credit_threshold X|heads, --credit_yardstick uniform|thinking|median   other baselines than
                           the paper's (docs/law.md)
  --resume_from_checkpoint true|auto|DIR   resume; auto: start if there is no checkpoint
  --max_minutes M          stop with a checkpoint after M minutes, to resume with --resume_from_checkpoint true
  --dry_run                print batches, memory and settings of the run without loading weights (docs/scaling.md),
                           for a machine with --gpus N --gpu_memory GB --sharding full
  --compile_rollouts true  on a GPU: a static cache and CUDA graphs for rollouts by transformers

Every option of TRL's GRPOConfig and ModelConfig is accepted under its own name; `--help-all` lists them all.
examples
  attnpo train --config configs/demo.yaml
  attnpo train --config configs/demo.yaml --credit outcome --output_dir runs/tlmre
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE.yaml", help="options as a YAML file; flags override it")
    parser.add_argument("--help-all", action="store_true", help="list every option (loads TRL, takes some seconds)")
    parser.add_argument(
        "--dry_run", action="store_true", help="check options and data, print batches and memory, load no weights"
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="with --dry_run: GPUs (default: 1)")
    parser.add_argument("--gpu_memory", type=float, metavar="GB", help="with --dry_run: memory of one, in 10^9 bytes")
    parser.add_argument(
        "--sharding", choices=("none", "full"), help="with --dry_run: full is FSDP2 or ZeRO-3 (default: none, DDP)"
    )
    parser.set_defaults(takes_any_option=True)


def run(args: argparse.Namespace) -> None:
    from attnpo.errors import InputError
    from attnpo.training.run import parse, train

    argv = list(args.rest)
    if args.help_all:
        parse(["--help"])
    if args.config is not None:
        argv = ["--config", args.config, *argv]
    plan = {"--gpus": args.gpus, "--gpu_memory": args.gpu_memory, "--sharding": args.sharding}
    if args.dry_run:
        from attnpo.training.dry_run import Machine, dry_run

        if args.gpus is not None and args.gpus < 1:
            raise InputError(f"option --gpus: found {args.gpus}, expected at least 1")
        memory = None if args.gpu_memory is None else int(args.gpu_memory * 10**9)
        dry_run(argv, Machine(args.gpus or 1, args.sharding == "full", memory))
        return
    if given := [name for name, value in plan.items() if value is not None]:
        raise InputError(f"option {', '.join(given)}: belongs to --dry_run, which is not given")
    train(argv)
