"""`AttnPOConfig`: TRL's GRPO options plus the three independent choices of this package.

advantage (one number per response) × length reward × credit (how that number is distributed over tokens).
Plain RLOO is rloo + none + outcome, TLMRE is rloo + tlmre + outcome, AttnPO is rloo + tlmre + attnpo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_utils import IntervalStrategy
from trl.data_utils import is_conversational
from trl.trainer.grpo_config import GRPOConfig

from attnpo.checks import check_whole
from attnpo.credit.advantages import KINDS, check_group_size
from attnpo.credit.base import CreditMethod, credit_names
from attnpo.errors import InputError
from attnpo.heads.table import FEWEST
from attnpo.rewards.length import LengthReward
from attnpo.steps.detect import Chosen, check_marks, choose_format
from attnpo.steps.formats import AUTO, built_in, load_format
from attnpo.steps.lexicon import load_lexicon
from attnpo.training.defaults import check_batch, fill_in
from attnpo.training.method_options import (
    ATTNPO_OPTIONS,
    check_loss,
    check_targets,
    describe_length_rewards,
    fixed_threshold,
    import_modules,
    make_credit,
    make_length_reward,
)


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class AttnPOConfig(GRPOConfig):
    """Configuration of `AttnPOTrainer`; every option of TRL's `GRPOConfig` keeps its name and meaning.

    Defaults that differ from TRL's are the paper's setting (docs/papers.md, "ATTNPO, as published"): RLOO
    advantages, length-aware reward with α = 0.2, token-mean clipped loss (`dapo`), no KL term, learning rate 2e-6.
    Batch size and delay T follow from other options (`attnpo.training.defaults`; `derived` has their values).

    Raises:
        InputError: for an unknown choice, a value out of range, or an option that would silently give wrong results
            with per-token advantages. The message names the option.
    """

    if TYPE_CHECKING:  # optional as TRL declares them; never None once checked
        output_dir: str = ""
        num_generations: int = 8
        steps_per_generation: int = 1
        generation_batch_size: int = 8
        report_to: list[str] = []
        chat_template_kwargs: dict[str, Any] | None = None
        derived: dict[str, Any] = {}

    learning_rate: float = _option(None, "The initial learning rate for AdamW. Default: 2e-6; of LoRA adapters 2e-5.")
    eval_strategy: IntervalStrategy | str = _option(  # noqa: RUF009 - a dataclass field like the others
        None,
        "When to evaluate held-out problems: steps, epoch or no. Default: not during training; `attnpo train` does so "
        "before and after it, unless this is no.",
    )
    gradient_accumulation_steps: int = _option(
        None,
        "Batches of per_device_train_batch_size per update. Default: as many as contain 16 problems with all their "
        "responses.",
    )
    num_generations_eval: int | None = _option(1, "Responses per held-out problem.")
    logging_steps: float = _option(1, "Log every X updates steps.")
    scale_rewards: str = _option(
        "auto",
        "Follows from `advantage`: rloo and dr_grpo do not divide, grpo divides by the group's standard deviation.",
    )

    advantage: str = _option("rloo", f"Outcome advantage: one of {', '.join(KINDS)}.")
    length_reward: str = _option("tlmre", f"Length reward, with its options: {describe_length_rewards()}.")
    length_alpha: float | None = _option(
        None, "α of the length reward, where it has one (tlmre: 0.2). Default: that of the method's paper."
    )
    length_kwargs: dict | str | None = _option(  # noqa: RUF009 - a dataclass field like the others
        None, "Options of the length reward, by its own names (a mapping in YAML, JSON on the command line)."
    )
    length_eval_target: int | None = _option(
        None, "l1_exact, l1_max: the length requested in held-out prompts. Default: drawn as in training."
    )
    credit: str = _option(
        "attnpo",
        "How the advantage of a response is distributed over its tokens: attnpo, outcome, shape, mrt, iop, "
        "first_correct, or a method of your own.",
    )

    heads: str | None = _option(
        None,
        "Head file (JSON) with the key-focus heads; auto: find them in the model's own responses before the first "
        "step. Default: heads.json in the model's folder, else auto.",
    )
    heads_count: int = _option(3, "heads=auto: maximum number of heads to use.")
    heads_traces: int = _option(64, "heads=auto: number of responses to rank the heads on.")
    thinking_format: str = _option(
        AUTO,
        f"How the model marks its thinking: {', '.join(built_in())}, a YAML file, or auto: detected from its tokenizer "
        "(docs/thinking-formats.md).",
    )
    lexicon: str = _option(
        "paper",
        "Phrases that begin a step of the thinking part: paper, released, zh, paragraphs, a JSON file of phrase lists, "
        "or several joined by +.",
    )
    credit_beta: float = _option(2.0, "β: the exponent of p in the baseline B = p^β·|F|/|o|.")
    credit_lambda: float = _option(2.0, "λ: the exponent of p in the attenuation of redundant steps.")
    credit_delta: float = _option(0.0, "δ: the smallest scale of a redundant step, in [0, 1].")
    credit_delay: int = _option(
        None,
        "T: redundant steps are attenuated once step > T·(1 − p). Default: half of max_steps; 1000, the paper's, where "
        "max_steps is not given.",
    )
    credit_positive: bool = _option(True, "Attenuate redundant steps of responses with a positive advantage.")
    credit_negative: bool = _option(True, "Protect essential steps of correct responses with a negative advantage.")
    credit_difficulty: bool = _option(True, "Use the difficulty terms (powers of p, delay); off: p = 1, no delay.")
    credit_yardstick: str = _option(
        "uniform",
        "Reference for a step's score: uniform (|F|/|o|, the paper), thinking (the mean score of a thinking token) "
        "or median (of the scores of the response's steps).",
    )
    credit_threshold: str = _option(
        "1",
        "τ: the baseline is τ·p^β yardsticks. A number, or heads: the value that separates essential from redundant "
        "steps, measured when the heads were found and stored in the head file.",
    )
    credit_sharp: bool = _option(
        False, "Attenuate all redundant steps of a response equally, as if their scores were 0."
    )

    credit_module: str | None = _option(
        None,
        "Python modules, separated by commas, that register credit methods or length rewards of your own; imported "
        "first, also from the current folder.",
    )
    credit_kwargs: dict | str | None = _option(  # noqa: RUF009 - a dataclass field like the others
        None,
        "Options of the credit method, by its own names (a mapping in YAML, JSON on the command line); those of "
        "attnpo are credit_beta, credit_delay, …",
    )

    correct_reward: str | None = _option(
        None,
        "Name of the reward function whose value 1 means a right answer. Default: the first with a known name "
        "(accuracy, TRL's accuracy_reward, one with `accuracy` or `correct` in its name), else the first one.",
    )
    thinking: str = _option(
        "yes",
        "yes: the answer follows the thinking part; no: the model does not think, the complete response is the answer "
        "(credit=outcome only).",
    )
    correct_threshold: float | None = _option(
        None, "Value of correct_reward from which a response is right. Default: 1, and higher values are an error."
    )
    verifier_workers: int = _option(2, "Worker processes that verify answers, per training process.")
    verifier_timeout: float = _option(5.0, "Seconds after which a verification is killed and counted as timed out.")
    answer_judge: str | None = _option(
        None,
        "URL#MODEL of an OpenAI-compatible endpoint that judges answers the verifier cannot decide, and answers to "
        "references it cannot read; its verdicts are judged_right and judged_wrong. Default: none.",
    )
    answer_judge_key_env: str | None = _option(
        None, "Environment variable with the key of answer_judge. Default: no key is sent."
    )
    record_rollouts: bool = _option(True, "Write every response with its steps, scores and scales to rollouts/.")
    overwrite_run: bool = _option(False, "Replace a run that output_dir already contains.")
    resume_with_changes: bool = _option(
        False,
        "Resume a run although reward, problems, batch or other settings differ from those it began with; the earlier "
        "ones are kept in config-history.jsonl.",
    )
    eval_on_start: bool | None = _option(
        None,
        "Evaluate the starting model, for comparison with the trained one. Default: `attnpo train` does, where there "
        "are held-out problems; a trainer built in Python does not.",
    )
    eval_examples: int = _option(8, "Held-out responses whose steps are scored and recorded at each evaluation.")
    patience: int = _option(
        10,
        "Stop with an error after this number of batches in a row in which no response has an advantage, so that "
        "nothing is learnt. 0: never.",
    )
    dynamic_sampling: int = _option(
        0,
        "Rounds in which groups whose responses all have the same reward are replaced by groups of other problems "
        "before the update (DAPO's dynamic sampling). 0: none.",
    )
    max_minutes: float | None = _option(
        None,
        "Stop with a checkpoint before the step that would end after this number of minutes, counted from when the "
        "model is loaded; the last evaluation follows. In a resumed run they are counted from 0.",
    )
    save_minutes: float | None = _option(
        30.0,
        "Also save a checkpoint when the last one is this number of minutes old; the previous one saved this way is "
        "removed. null (YAML), or save_strategy no: never.",
    )
    max_skipped: int = _option(
        5,
        "Number of updates in a row with a loss or gradient that is not finite after which the run ends, with a "
        "checkpoint of the weights before them; fewer are skipped and counted. 1: end at the first.",
    )
    stop_notice: float = _option(
        30.0,
        "Seconds between SIGTERM and SIGKILL of the scheduler. A step that has not ended after a third of them is "
        "abandoned, and the state before it saved.",
    )
    compile_rollouts: bool = _option(
        False,
        "Rollouts by transformers on a GPU: a static key-value cache and a compiled step (CUDA graphs), in the "
        "precision of the weights.",
    )

    def __post_init__(self) -> None:
        self.derived = fill_in(self)
        self._find_credit_method()
        self._check_choices()
        if self.compile_rollouts:
            self._use_static_cache()
        if self.bf16 is None and not self.fp16 and (self.use_cpu or not torch.accelerator.is_available()):
            self.bf16 = False  # TRL's default (bf16 everywhere) is emulated, and slow, on most CPUs
        if isinstance(self.scale_rewards, bool):  # as in TRL
            self.scale_rewards = "group" if self.scale_rewards else "none"
        scaling = "group" if self.advantage == "grpo" else "none"
        if self.scale_rewards not in ("auto", scaling):
            raise InputError(
                f"scale_rewards is {self.scale_rewards!r}, but advantage={self.advantage!r} means {scaling!r}: "
                "choose the advantage, scale_rewards follows"
            )
        self.scale_rewards = scaling
        super().__post_init__()
        check_loss(self, self.credit, self.make_credit())

    @classmethod
    def of(cls, args: Any) -> AttnPOConfig:
        """Return `args`, or a `GRPOConfig` converted, with this class's defaults where it has TRL's.

        Raises:
            InputError: arguments of another type.
        """
        if isinstance(args, cls):
            return args
        if not isinstance(args, GRPOConfig):
            raise InputError(f"args: found {type(args).__name__}, expected AttnPOConfig (or TRL's GRPOConfig)")
        given = {
            option.name: getattr(args, option.name)
            for option in fields(GRPOConfig)
            if option.init and getattr(args, option.name) != option.default
        }
        given.pop("generation_batch_size", None)  # follows from the batch size and steps_per_generation
        if args.steps_per_generation == args.gradient_accumulation_steps:
            given.pop("steps_per_generation", None)
        return cls(**given)

    def _find_credit_method(self) -> None:
        import_modules(self.credit_module)
        self.credit_kwargs = _mapping("credit_kwargs", self.credit_kwargs)

    def _check_choices(self) -> None:
        for option, choices in (
            ("advantage", KINDS),
            ("credit", credit_names()),
            ("thinking", ("yes", "no")),
        ):
            value = getattr(self, option)
            if value not in choices:
                raise InputError(f"option {option}: found {value!r}, expected one of {', '.join(choices)}")
        load_lexicon(self.lexicon)
        self.length_kwargs = _mapping("length_kwargs", self.length_kwargs)
        check_targets(self.make_length_reward(), self.length_eval_target, self.max_completion_length)
        if self.thinking == "no" and self.credit != "outcome":
            raise InputError(
                f"option thinking: 'no' leaves credit={self.credit!r} no steps to distinguish; expected credit outcome"
            )
        if self.num_generations is not None:
            check_group_size(self.advantage, self.num_generations)
            check_batch(self)
        for option in (
            "verifier_workers",
            "verifier_timeout",
            "heads_count",
            "max_minutes",
            "save_minutes",
            "max_skipped",
        ):
            value = getattr(self, option)
            if value is not None and not value > 0:
                raise InputError(f"option {option}: found {value}, expected more than 0")
        check_whole("option dynamic_sampling", self.dynamic_sampling, low=0)
        if self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or "accuracy"
            if self.metric_for_best_model.removeprefix("eval_") == "loss":
                raise InputError(
                    f"option metric_for_best_model: found {self.metric_for_best_model!r}, but evaluations compute no "
                    "loss; expected accuracy, or another number of evaluations.jsonl"
                )
        if self.patience < 0:
            raise InputError(f"option patience: found {self.patience}, expected a number of batches, or 0 (never stop)")
        if self.heads_traces < FEWEST:
            raise InputError(f"option heads_traces: found {self.heads_traces}, expected at least {FEWEST}")
        if self.thinking_format != AUTO and not load_format(self.thinking_format).ends and self.credit != "outcome":
            raise InputError(
                f"option thinking_format: {self.thinking_format!r} has no thinking part and leaves "
                f"credit={self.credit!r} no steps to distinguish; expected credit outcome"
            )
        self.make_credit()  # checks the ranges of the method's own options

    def _use_static_cache(self) -> None:
        """Set the options that a compiled step of rollouts needs; InputError for options that exclude it."""
        for option, wanted in (
            ("use_vllm", (False,)),
            ("use_transformers_continuous_batching", (False,)),
            ("cache_implementation", (None, "static")),
            # Under autocast, rotary embeddings return float32 keys, values have 16 bits; a static cache has one type.
            ("bf16", (None, False)),
            ("fp16", (False,)),
        ):
            if getattr(self, option) not in wanted:
                raise InputError(
                    f"option {option}: found {getattr(self, option)!r}, expected {wanted[-1]!r} with compile_rollouts"
                )
        self.cache_implementation, self.bf16 = "static", False

    def make_credit(self) -> CreditMethod:
        """Create the credit method of this configuration."""
        given: Any = self.credit_kwargs
        of_attnpo = {name: getattr(self, option) for name, option in ATTNPO_OPTIONS.items()}
        of_attnpo["threshold"] = fixed_threshold(self.credit_threshold, self.credit_yardstick)
        return make_credit(self.credit, given, of_attnpo)

    def make_length_reward(self) -> LengthReward:
        """Create the length reward of this configuration."""
        given: Any = self.length_kwargs
        return make_length_reward(self.length_reward, self.length_alpha, given, self.max_completion_length)


class PlannedConfig(AttnPOConfig):
    """`AttnPOConfig` of a run on another machine, which has a GPU (unless `use_cpu`), read on any machine.

    `bf16` has the value that it gets there, and is in `derived` where it was not given.
    """

    def __post_init__(self) -> None:
        planned = {name: getattr(self, name) for name in ("use_cpu", "tf32", "dataloader_pin_memory")}
        is_open = self.bf16 is None
        if is_open and not (self.use_cpu or self.fp16 or self.compile_rollouts):
            self.bf16 = True  # as TRL sets it on a GPU
        self.use_cpu, self.tf32 = True, None  # transformers would look for a GPU that can do bf16 and tf32
        super().__post_init__()
        if not planned["use_cpu"]:
            for name, value in planned.items():
                setattr(self, name, value)
            self.derived.pop("dataloader_pin_memory", None)
        if is_open:
            self.derived["bf16"] = self.bf16


def _mapping(option: str, given: Any) -> dict[str, Any] | None:
    """Return the value of an option that takes a mapping or JSON of one."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InputError(
                f"option {option}: found {given!r}, expected JSON such as '{{\"name\": 1}}': {error}"
            ) from error
    if given is not None and not isinstance(given, dict):
        raise InputError(f"option {option}: found {given!r}, expected a mapping")
    return given


def format_of_run(args: AttnPOConfig, tokenizer: Any, dataset: Any) -> Chosen:
    """Choose the thinking format of the responses of a run.

    Raises:
        InputError: an unknown format, or one whose marks the tokenizer cannot produce.
    """
    prompt, tail = _first_prompt(dataset, tokenizer, args)
    chosen = choose_format(
        args.thinking_format, tokenizer, prompt=prompt, tail=tail, template_options=args.chat_template_kwargs
    )
    if args.thinking_format != AUTO:
        check_marks(chosen.form, tokenizer)
    return chosen


def _first_prompt(dataset: Any, tokenizer: Any, args: AttnPOConfig) -> tuple[str, str | None]:
    """Return the first prompt as text, and the text after its last message.

    The second is None where the prompt is not a conversation. A data set that can only be streamed gives ("", None).
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) == 0:
        return "", None
    row = dataset[0]
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if isinstance(prompt, str):
        return prompt, None
    if prompt is None or not is_conversational({"prompt": prompt}):
        return "", None
    options = {**(args.chat_template_kwargs or {}), **(row.get("chat_template_kwargs") or {})}
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    content = prompt[-1]["content"]
    message = content.strip() if isinstance(content, str) else ""
    return text, text.rpartition(message)[2] if message and message in text else None
