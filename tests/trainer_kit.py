"""Helpers of the trainer tests: canned responses, trainers on a tiny model, and recorders of their calls.

Loaded by the fixture `trainer_kit`. A random model never answers, so responses are given, not sampled: `can_responses`
replaces the one method of TRL's trainer that calls the model to generate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from attnpo import AttnPOConfig, AttnPOTrainer

torch.set_num_threads(
    1
)  # these models are too small for threads to help, and on a busy machine they wait for each other

HEADS = [(1, 0), (2, 3)]

# Steps of at least 80 characters, so that none is merged with a neighbour; each begins with a trigger or the text.
ADD = "12 and 30 are to be added here, and that is easy enough to do one digit after the other: we have 42.\n"
CHECK = "Wait, I should look at the tens once more, because a carry is quickly lost there: 1 plus 3 is 4, fine.\n"
OTHER = "Alternatively, count from 30 upwards in steps of four: 34, 38, 42. That is the same number as before.\n"
CONCLUDE = "So the sum is 42, which both ways of counting have given, and nothing is left to be done after this.\n"
RIGHT = "\nThe answer is \\boxed{42}."
WRONG = "\nThe answer is \\boxed{41}."


@dataclass(frozen=True)
class Canned:
    """One response, put together from pieces whose token counts are known without reading the text back."""

    steps: tuple[str, ...]
    answer: str | None  # None: no closing tag
    truncated: bool = False

    @property
    def text(self) -> str:
        return "".join(self.steps) + ("" if self.answer is None else "</think>" + self.answer)

    def ids(self, tokenizer: Any) -> list[int]:
        pieces = [*self.steps, *([] if self.answer is None else ["</think>", self.answer])]
        ids = [token for piece in pieces for token in encode(tokenizer, piece)]
        return ids if self.truncated else [*ids, tokenizer.eos_token_id]

    def spans(self, tokenizer: Any) -> list[tuple[int, int]]:
        """[start, end) of every step in tokens of the response."""
        spans, start = [], 0
        for step in self.steps:
            spans.append((start, start + len(encode(tokenizer, step))))
            start = spans[-1][1]
        return spans

    def answer_span(self, tokenizer: Any) -> tuple[int, int] | None:
        """[start, end) of the final answer, end token included."""
        if self.answer is None:
            return None
        thinking = sum(len(encode(tokenizer, step)) for step in self.steps)
        return thinking + 1, len(self.ids(tokenizer))


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


SHORT = Canned((ADD, CONCLUDE), RIGHT)
USUAL = Canned((ADD, CHECK, CONCLUDE), RIGHT)
LONG = Canned((ADD, CHECK, OTHER, CONCLUDE), RIGHT)
FALSE = Canned((ADD, OTHER), WRONG)
ENDLESS = Canned((ADD, CHECK, OTHER), None, truncated=True)
SILENT = Canned((ADD, CONCLUDE), "")
MIXED = [LONG, SHORT, USUAL, SHORT, USUAL, FALSE, ENDLESS, SILENT]
"""Two groups of four: all right (the long one has a negative advantage); one right, one of each other kind."""


def gold_labels(policy: Any, traces: list[Any], batch_size: int) -> list[list[bool]]:
    """In place of `own_heads.causal_labels`, for canned responses: checks and detours are redundant."""
    essential = (len(ADD), len(CONCLUDE))  # no other step is as long
    return [[step["end"] - step["start"] in essential for step in trace.steps] for trace in traces]


def says_42(completions: list[Any], **kwargs: Any) -> list[float]:
    """1 where the final answer is 42. A reward without processes, for tests that are not about verification."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [float("\\boxed{42}" in text.partition("</think>")[2]) for text in texts]


says_42.__name__ = "accuracy"


def problems(count: int, **columns: Any) -> Dataset:
    rows = [{"prompt": f"What is {12 + i} + {30 - i}?", "reference": "42", "id": f"p{i}"} for i in range(count)]
    return Dataset.from_list([{**row, **columns} for row in rows])


def sharpen(model: Any, factor: float = 16.0) -> Any:
    """Make a random model's attention uneven, so that steps get scores on both sides of the baseline."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(factor)
            layer.self_attn.k_proj.weight.mul_(factor)
    return model


def options(folder: Path, **changes: Any) -> AttnPOConfig:
    """Quick settings: two groups of four a step, one step, every step's rescaling on from the start."""
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_steps": 1,
        "max_completion_length": 1000,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "credit_delay": 0,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "dataloader_pin_memory": False,
        "seed": 0,
    }
    return AttnPOConfig(**{**values, **changes})


def make_trainer(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    responses: list[Canned] | None = None,
    reward: Any = says_42,
    data: Any = None,
    eval_data: Any = None,
    heads: Any = HEADS,
    trainer_options: dict[str, Any] | None = None,
    **changes: Any,
) -> AttnPOTrainer:
    """A trainer whose responses are canned (none given: really sampled)."""
    args = options(folder, **changes)
    trainer = AttnPOTrainer(
        model,
        reward,
        args,
        data if data is not None else problems(8),
        eval_data,
        tokenizer,
        heads=heads if args.credit == "attnpo" else None,
        **(trainer_options or {}),
    )
    if responses is not None:
        can_responses(trainer, responses)
    return trainer


def can_responses(trainer: Any, responses: list[Canned]) -> None:
    """Let the trainer get these responses, in this order, again and again."""
    served = 0

    def generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any):
        nonlocal served
        ids = [responses[(served + i) % len(responses)].ids(trainer._tokenizer) for i in range(len(prompt_ids))]
        served += len(prompt_ids)
        return ids, None

    trainer._generate_single_turn = generate


@dataclass
class Seen:
    """What went through the loss: per micro-batch its tensors, and the gradients before each optimiser step."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def rows(self) -> dict[tuple[int, ...], torch.Tensor]:
        """Prompt and completion ids -> the per-token advantages of the completion, over all micro-batches."""
        found = {}
        for batch in self.batches:
            for i, advantages in enumerate(batch["advantages"]):
                prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
                row = batch["completion_mask"][i].bool()
                found[tuple(prompt + batch["completion_ids"][i][row].tolist())] = advantages[row]
        return found


def spy(trainer: Any) -> Seen:
    """Record what the loss sees; to be called before training."""
    seen = Seen()
    inner = trainer._compute_loss

    def compute(model, inputs):
        loss = inner(model, inputs)
        seen.losses.append(loss.item())
        kept = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        if kept["advantages"].dim() == 1:
            kept["advantages"] = kept["advantages"][:, None].expand(kept["completion_mask"].shape)
        seen.batches.append(kept)
        return loss

    class Gradients(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            assert model is not None
            named = model.named_parameters()
            seen.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    trainer._compute_loss = compute
    trainer.add_callback(Gradients())
    return seen


def save_model(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A model folder as `attnpo train --model_name_or_path` takes it, with its heads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "heads.json").write_text('{"heads": [[1, 0], [2, 3]]}')
    return folder


def command(model: Path, data: Path, output: Path, *more: str) -> list[str]:
    """`attnpo train` on a tiny model: two problems × two responses of eight tokens, one step."""
    given = {
        "model_name_or_path": model,
        "dataset_name": data,
        "output_dir": output,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "max_completion_length": 8,
        "use_cpu": "true",
        "report_to": "none",
        "verifier_workers": 1,
        "verifier_timeout": 60,
    }
    return ["train", *(word for name, value in given.items() for word in (f"--{name}", str(value))), *more]


def write_problems(file: Path, count: int = 4) -> Path:
    import json

    rows = [{"problem": f"What is {i} + 1?", "reference": str(i + 1)} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
