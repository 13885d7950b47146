"""One training run, from options to a finished run folder and its summary: `train`, called by `attnpo train`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging as transformers_logging
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config

from attnpo.attention.heads import AUTO
from attnpo.errors import InputError, RunError, StoppedError
from attnpo.judges.client import AnswerJudge
from attnpo.models import nearest_model, resolve_model, shipped_model
from attnpo.rewards.accuracy import WHOLE, AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.formats import THINK
from attnpo.steps.spans import locate_steps
from attnpo.training.callbacks import LexiconWatch, LiveProgress, SignalWatch
from attnpo.training.checkpoints import checkpoint_of, passed_over
from attnpo.training.config import AttnPOConfig
from attnpo.training.defaults import ADAPTER_LEARNING_RATE, SHIPPED_LEARNING_RATE, without_effect
from attnpo.training.description import environment_of, evaluated, print_summary, save_trained, write_description
from attnpo.training.known_heads import kept_heads, spare_found_heads
from attnpo.training.method_options import length_targets
from attnpo.training.options import DataConfig, is_complete, model_kwargs, parse, resolved_options
from attnpo.training.problems import Use, load_sets, overlap_warnings, without_bars
from attnpo.training.records import HEADS_TRACES, WARNINGS, RunFolder, locked
from attnpo.training.resume import accepted_changes, keep_delay
from attnpo.training.rewards import OURS, load_rewards
from attnpo.training.stopping import StepAbandoned, StopAfterMinutes, StopOnInterrupt
from attnpo.training.trackers import check_trackers, open_to_the_end
from attnpo.training.trainer import AttnPOTrainer
from attnpo.training.vllm_rollouts import check_vllm, in_process

RENAMED = "checkpointing"
"""In transformers' deprecation warnings of gradient_checkpointing, which TRL still sets under this old name."""

UNJUDGED = "All reward functions returned None"
"""Start of TRL's warning about a response that could not be verified. It prints the complete response for each batch;
the verdict counts have the same information."""

TIED = "There were missing keys in the checkpoint model loaded: ['lm_head.weight']"
"""Start of transformers' warning about weights that are tied to the embeddings and therefore not in checkpoints."""


class _Silent(logging.Filter):
    """Suppresses log messages with these beginnings."""

    def __init__(self, *beginnings: str) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginnings)


@contextmanager
def quiet_screen() -> Iterator[None]:
    """Suppress progress bars of loading and writing files, and exactly these warnings, inside the block."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=f".*{RENAMED}.* is deprecated", category=FutureWarning)
        silent = _Silent(UNJUDGED, TIED)
        for name in ("trl.trainer.grpo_trainer", "transformers.trainer"):
            logging.getLogger(name).addFilter(silent)
            stack.callback(logging.getLogger(name).removeFilter, silent)
        if transformers_logging.is_progress_bar_enabled():
            transformers_logging.disable_progress_bar()
            stack.callback(transformers_logging.enable_progress_bar)
        stack.enter_context(without_bars())
        yield


def train(argv: list[str], *, console: Console | None = None) -> Path:
    """Run `attnpo train` with these arguments; returns the run folder.

    Raises:
        InputError: anything wrong with options, data or model, before training starts.
        RunError: losses or gradients are not finite, a reward function failed, or Ctrl-C; a checkpoint of the last good
            weights is saved first.
        StoppedError: SIGTERM; the state of training, if it has begun, is saved first.
    """
    with quiet_screen():
        data, args, model_config = parse(argv)
    console = console or Console(quiet=args.process_index > 0)  # only one of several processes prints
    found = checkpoint_of(Path(args.output_dir), args.resume_from_checkpoint)
    resume = None if found is None else str(found)
    check_packages(args)
    use_fitting_rate(args, model_config)
    again = resume is None and str(args.resume_from_checkpoint).lower() == "auto"
    if resume is None and not args.overwrite_run and not again:
        RunFolder(args.output_dir).check_free()
    RunFolder(args.output_dir).check_writable()
    stop = StopOnInterrupt(args.stop_notice)
    with ExitStack() as stack:
        stack.enter_context(stop.watching())
        if args.process_index == 0:
            stack.enter_context(locked(Path(args.output_dir)))
            if again and any(Path(args.output_dir).glob("*.safetensors")):
                raise InputError(
                    f"option resume_from_checkpoint: {args.output_dir} has a trained model and no checkpoint to resume "
                    "from; choose another folder, or --overwrite_run true to begin again"
                )
            if again:  # a run stopped before its first checkpoint begins again, with the heads it has found
                RunFolder(args.output_dir).forget_start()
        if found is not None:
            for warning in passed_over(Path(args.output_dir), found):
                console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
            console.print(f"resuming from {found}", markup=False, highlight=False, soft_wrap=True)
        stack.enter_context(quiet_screen())
        judge = answer_judge(args)
        pool = stack.enter_context(VerifierPool(args.verifier_workers, timeout=args.verifier_timeout, judge=judge))
        trainer, notes = build_trainer(data, args, model_config, pool, console)
        trainer.add_callback(stop)
        keep_delay(trainer, resume)
        sets = {"train": trainer.train_dataset, "eval": trainer.eval_dataset}
        about = environment_of(args, ["attnpo", "train", *argv], notes, sets, trainer.rewards.who_judges)
        defaults = {option.name: option.default for part in (data, args, model_config) for option in fields(part)}
        options = resolved_options(data, args, model_config)
        changed = accepted_changes(resume, options, about, defaults, accepted=args.resume_with_changes)
        given = trainer.heads_file
        if resume is not None:
            trainer.heads, trainer.heads_file = kept_heads(trainer, resume)
        elif not args.overwrite_run:
            spare_found_heads(trainer)
        if trainer.is_world_process_zero():
            if resume is None and args.overwrite_run:
                trainer.folder.clear(keep=trainer.heads_file)
            found = trainer.heads_file is not None and trainer.heads_file.with_name(HEADS_TRACES).is_file()
            if trainer.needs_heads or (found and trainer.heads_file != given):
                args.heads = AUTO  # resolves the default, for config.yaml
            options = resolved_options(data, args, model_config)
            write_description(Path(args.output_dir), options, about, resumed=resume, changed=changed)
            if resume is None:
                (trainer.folder.path / WARNINGS).unlink(missing_ok=True)
            if trainer.heads_file is not None:
                trainer.folder.keep_heads(trainer.heads_file, traces=found and trainer.heads_file != given)
        trainer.is_described = True
        for warning in [*without_effect(args), *overlap_warnings(sets)]:
            warn(warning, trainer.folder, console)
        trainer.find_heads(resumed=resume or False, say=console.print)
        with open_to_the_end(trainer):
            run_steps(trainer, resume, console)
    if trainer.is_world_process_zero():
        print_summary(Path(args.output_dir), console)
    # Of several processes, one that exits with its group still open may abort. A vLLM engine in this process closes the
    # group itself, after its own groups, and fails where it is closed already.
    if not in_process(args):
        trainer.accelerator.state.destroy_process_group()
    return Path(args.output_dir)


def check_packages(args: AttnPOConfig) -> None:
    """Raise InputError for options whose package is not installed or does not work here."""
    check_vllm(args)
    check_trackers(args.report_to)


def last_checkpoint_note(trainer: AttnPOTrainer) -> str:
    """Return where the last checkpoint is, or why it could not be saved."""
    failed = trainer.checkpoint_failed
    if failed is not None:
        return f"its checkpoint could not be saved ({failed}), the earlier ones are unchanged"
    return f"the checkpoint is in {trainer.args.output_dir}/checkpoint-{trainer.state.global_step}"


def use_fitting_rate(args: AttnPOConfig, model_config: ModelConfig) -> None:
    """Set the learning rate for a shipped (small) model or for adapters, where none is given."""
    if "learning_rate" not in args.derived:
        return
    name = model_config.model_name_or_path
    if name is None or resolve_model(name) != name:
        args.learning_rate = args.derived["learning_rate"] = SHIPPED_LEARNING_RATE
    elif model_config.use_peft:
        args.learning_rate = args.derived["learning_rate"] = ADAPTER_LEARNING_RATE


def warn(message: str, folder: RunFolder, console: Console) -> None:
    """Print a warning before the first step and write it to warnings.jsonl, for the page."""
    console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if not console.quiet:  # only one of several processes writes
        folder.append(WARNINGS, {"step": 0, "message": message})


def load_tokenizer(path: str, model_config: ModelConfig, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer; InputError where there is none or it cannot map tokens to characters."""
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise InputError(f"option model_name_or_path: no folder {path}{nearest_model(path)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            revision=model_config.model_revision,
            trust_remote_code=trust_remote_code,
            padding_side="left",
        )
    except (OSError, ValueError) as error:
        nowhere = "" if Path(path).expanduser().exists() else f" (there is no such folder{nearest_model(path)})"
        raise InputError(f"option model_name_or_path: no model or tokenizer {path!r}{nowhere}: {error}") from error
    # Raises InputError for a tokenizer whose tokens cannot be decoded one by one.
    locate_steps(tokenizer, tokenizer(f"a b{THINK.bridge}c")["input_ids"])
    return tokenizer


def load_parts(
    data: DataConfig, args: AttnPOConfig, model_config: ModelConfig, pool: VerifierPool
) -> tuple[str, PreTrainedTokenizerBase, AccuracyReward, list[Any]]:
    """Return the model's path, its tokenizer, our verifier and the reward functions of a run."""
    model_config.model_name_or_path = model_config.model_name_or_path or shipped_model(data.task_redundancy)
    path = resolve_model(model_config.model_name_or_path)
    tokenizer = load_tokenizer(path, model_config, trust_remote_code=args.trust_remote_code)
    accuracy = AccuracyReward(pool, form=WHOLE if args.thinking == "no" else None)
    return path, tokenizer, accuracy, load_rewards(data.reward_funcs or [OURS], accuracy)


def build_trainer(
    data: DataConfig, args: AttnPOConfig, model_config: ModelConfig, pool: VerifierPool, console: Console
) -> tuple[AttnPOTrainer, dict[str, Any]]:
    """Build the trainer of a run; also returns the numbers of problems left out (for environment.json)."""
    path, tokenizer, accuracy, rewards = load_parts(data, args, model_config, pool)
    say = partial(console.print, highlight=False, markup=False)
    sets = load_sets(data, tokenizer, accuracy, say, use_of(data, args))
    if sets.held_out is not None and args.eval_strategy == "no" and "eval_strategy" not in args.derived:
        console.print("eval_strategy no: the held-out problems are not used", highlight=False)
    if args.model_init_kwargs is None:
        args.model_init_kwargs = model_kwargs(model_config)
    if args.eval_strategy != "no" and sets.held_out is None:
        raise InputError("option eval_strategy: there are no held-out problems; give eval_dataset_name")
    try:
        trainer = AttnPOTrainer(
            model=path,
            reward_funcs=rewards,
            args=args,
            train_dataset=sets.train,
            eval_dataset=sets.held_out,
            processing_class=tokenizer,
            callbacks=[LiveProgress(console)],
            peft_config=get_peft_config(model_config),
        )
    except (OSError, ValueError, ImportError) as error:
        # Here TRL and transformers check their arguments: weights, attention implementation, missing packages.
        raise error if isinstance(error, InputError) else InputError(str(error)) from error
    responses = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    each, rate = args.num_generations, args.learning_rate
    console.print(f"an update: {responses} responses, {each} to a problem; learning rate {rate:g}", highlight=False)
    console.print(str(trainer.thinking), highlight=False, markup=False, soft_wrap=True)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, SignalWatch | LexiconWatch):
            callback.console = console
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer, sets.notes


def use_of(data: DataConfig, args: AttnPOConfig) -> Use:
    """Return how a run with these options uses its problems."""
    length = args.make_length_reward()
    return Use(
        verified=OURS in (data.reward_funcs or [OURS]) and args.answer_judge is None,
        keeps_columns=bool(data.reward_funcs),
        max_prompt_tokens=data.max_prompt_length,
        template_options=args.chat_template_kwargs or {},
        train_targets=length_targets(length, args.seed),
        eval_targets=length_targets(length, args.seed, args.length_eval_target),
    )


def answer_judge(args: AttnPOConfig) -> AnswerJudge | None:
    """Return the judge for undecided answers, if there is one; its answers are cached in the run's folder."""
    if args.answer_judge is None:
        return None
    cache = Path(args.output_dir, "answer_judge.sqlite")
    return AnswerJudge(args.answer_judge, api_key_env=args.answer_judge_key_env, cache=cache)


def run_steps(trainer: AttnPOTrainer, resume: str | None, console: Console) -> None:
    """Evaluate, train, evaluate; with `eval_strategy` given as no, evaluate only where `eval_on_start` is true."""
    args = trainer.args
    # eval_on_start is handled here, because transformers would evaluate again whenever a run is resumed.
    never = args.eval_strategy == "no" and "eval_strategy" not in args.derived
    on_start, args.eval_on_start = args.eval_on_start is not False if not never else bool(args.eval_on_start), False
    if trainer.eval_dataset is not None and on_start and resume is None:
        console.print("evaluating the starting model …")
        trainer.evaluate()
    try:
        if resume is not None and is_complete(resume, args.max_steps):
            console.print(f"all {args.max_steps} steps are done already")  # transformers would do one more
            trainer._load_from_checkpoint(resume)
            trainer.state = TrainerState.load_from_json(str(Path(resume) / TRAINER_STATE_NAME))
        else:
            trainer.train(resume_from_checkpoint=resume)
    except StepAbandoned:
        raise StoppedError(
            f"stopped by SIGTERM within the step after {trainer.state.global_step} of {trainer.state.max_steps}, which "
            f"would not have ended in time; the state before it is in {trainer.save_checkpoint()}, "
            "resume with --resume_from_checkpoint true"
        ) from None
    finally:  # the end-of-training event does not come after an error
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, LiveProgress | StopOnInterrupt):
                callback.close()
    done, steps = trainer.state.global_step, trainer.state.max_steps
    interrupted = [c for c in trainer.callback_handler.callbacks if isinstance(c, StopOnInterrupt) and c.asked]
    if done < steps and interrupted:
        raise (StoppedError if interrupted[0].terminated else RunError)(
            f"stopped after step {done} of {steps}; {last_checkpoint_note(trainer)}, "
            "resume with --resume_from_checkpoint true"
        )
    if done < steps and any(isinstance(c, StopAfterMinutes) and c.reached for c in trainer.callback_handler.callbacks):
        console.print(
            f"stopped by max_minutes ({args.max_minutes:g}) after step {done} of {steps}; "
            f"{last_checkpoint_note(trainer)}, resume with --resume_from_checkpoint true",
            highlight=False,
        )
    save_trained(trainer)
    if (
        trainer.eval_dataset is not None
        and not never
        and not evaluated(Path(args.output_dir), trainer.state.global_step)
    ):
        console.print("evaluating the trained model …")
        trainer.evaluate()
        trainer.create_model_card()  # again, with the last evaluation
