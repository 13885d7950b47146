"""verl's synchronous trainer with credit per step and this package's run folder; the advantage estimator `attnpo`.

verl's own training step is kept. Before the old-log-prob forward the steps are found on the sampled ids and sent to the
engine; after it the scores are available, and the estimator returns the advantages of all tokens to verl
(`handing_over`). With another trainer of verl's, `algorithm.adv_estimator=attnpo` gives outcome advantages without
credit per step: RLOO with TLMRE, unless `attnpo` options in the algorithm's configuration specify others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from jaxtyping import Float, Shaped
from omegaconf import OmegaConf, open_dict
from tensordict import NonTensorData, TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from attnpo.attention.heads import HEADS as HEADS_FILE
from attnpo.credit.advantages import outcome_advantages
from attnpo.data.jsonl import write_whole
from attnpo.engines.verl.ledger import WHY_MISSING, Ledger, Rows, grouped, heads_of_run, judged_elsewhere
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.wire import HEADS, SCORES, SPANS, heads_as_text, nothing_to_score
from attnpo.errors import RunError
from attnpo.models.loading import end_tokens, find_model
from attnpo.steps.detect import choose_format
from attnpo.training.rewards import RewardSetup

STATE = "attnpo.json"
"""File in every verl checkpoint: heads, options of the credit method, state of the length reward."""

OWN_NAMES = {
    "actor/pg_loss": "loss",
    "actor/entropy": "entropy",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/pg_clipfrac": "clip_ratio",
    "critic/score/mean": "reward_of_verl",
    "timing_s/gen": "seconds/rollout",
    "timing_s/old_log_prob": "seconds/old_log_prob",
    "timing_s/update_actor": "seconds/update",
    "timing_s/step": "seconds/step",
}
"""verl's metrics -> their names in the run folder, which are those of TRL's trainer or similar ones."""


@register_trainer("attnpo")
class AttnPOTrainerSync(PPOTrainerSync):
    """`PPOTrainerSync` with advantages per token from the credit method of `config.attnpo`."""

    def __init__(self, config: Any) -> None:
        self.options = VerlOptions.of(OmegaConf.to_container(config.attnpo, resolve=True))
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # the value that verl's own code requires
        super().__init__(config)
        self._batch_of_step: Rows | None = None
        self._seconds_since = time.perf_counter()
        self._bytes = 0

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        rollout, folder = self.config.actor_rollout_ref.rollout, Path(self.options.output_dir)
        model = self.config.actor_rollout_ref.model.path
        self.options.max_completion_length = self.config.data.max_response_length
        chosen = choose_format(self.options.thinking_format, self.tokenizer, template_options=self._template_options())
        needed = "attention" in self.options.make_credit().signals
        self.ledger = Ledger(
            self.options,
            self.tokenizer,
            chosen.form,
            end_ids=end_tokens(find_model(str(model)).generation_config(), self.tokenizer),
            group_size=rollout.n,
            steps=self.total_training_steps,
            heads=heads_of_run(folder) if needed else None,
        )
        if needed:
            self.ledger.use_threshold_of(folder / HEADS_FILE)
        print(str(chosen))

    def _template_options(self) -> Mapping[str, Any]:
        return dict(self.config.data.get("apply_chat_template_kwargs", None) or {})

    # ---------------------------------------------------------------- a training step

    def _rows(self, batch: Any, keys: list[str]) -> Rows:
        """Read the ledger's input for these responses from verl's store."""
        tensors, others = (
            ["prompts", "responses", "rm_scores"],
            ["raw_prompt", "reward_model", "extra_info", "extra_fields"],
        )
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=[*tensors, *others])
        parts = [key.rsplit("_", 2) for key in keys]
        if any(len(part) != 3 or part[2] != "0" for part in parts):
            raise RunError(
                "an agent loop returned several outputs for one response, expected one (single_turn_agent): credit "
                "reads the steps of one uninterrupted response"
            )
        columns = {name: plain(data.get(name, None), len(keys)) for name in others}
        rows, verdicts = [], []
        for prompt, model, info, extra in zip(
            columns["raw_prompt"], columns["reward_model"], columns["extra_info"], columns["extra_fields"], strict=True
        ):
            found = dict(info or {})
            row = {"prompt": list(prompt), "reference": (model or {}).get("ground_truth"), "id": found.get("id")}
            if row["id"] is None and "index" in found:
                row["id"] = str(found["index"])
            if isinstance(found.get("place"), int):
                row["place"] = found["place"]
            rows.append(row)
            verdicts.append(((extra or {}).get("reward_extra_info") or {}).get("verdict"))
        return Rows(
            uids=[part[0] for part in parts],
            numbers=[int(part[1]) for part in parts],
            prompts=[row.tolist() for row in data["prompts"].unbind()],
            responses=[row.tolist() for row in data["responses"].unbind()],
            rows=rows,
            rewards=[float(row.sum()) for row in data["rm_scores"].unbind()],
            verdicts=verdicts,
        )

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Run verl's old-log-prob forward, and score the steps in it."""
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        with self.ledger.recorder.timer("transport"):
            rows = self._rows(batch, [key for key, is_real in zip(batch.keys, real, strict=True) if is_real])
        found, wanted = len(set(rows.uids)), self.config.data.train_batch_size
        if found != wanted:
            raise RunError(f"{found} of {wanted} problems came back. {WHY_MISSING}")
        spans = iter(self.ledger.locate(rows))
        self._batch_of_step = rows
        self._bytes = rows.bytes()
        if self.ledger.heads is None:
            return super()._compute_old_log_prob(batch, metrics)
        packed = [next(spans) if is_real else nothing_to_score() for is_real in real]
        with self.ledger.recorder.timer("transport"):
            put(batch, SPANS, packed)
        self._bytes += sum(row.numel() * row.element_size() for row in packed)
        batch.extra_info[HEADS] = heads_as_text(self.ledger.heads)
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop(HEADS, None)  # otherwise later forwards would score the steps too
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Run verl's method with the advantages computed by the ledger."""
        rows = self._batch_of_step
        assert rows is not None
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        signals: dict[str, list[Tensor]] = {}
        for name, field in (("attention", SCORES), ("entropy", "entropy")):
            if name in self.ledger.credit.signals:
                with self.ledger.recorder.timer("transport"):
                    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[field])
                    found = list(data[field].unbind())
                signals[name] = [row.float() for row, is_real in zip(found, real, strict=True) if is_real]
                self._bytes += sum(row.numel() * row.element_size() for row in found)
        tokens = iter(
            self.ledger.advantages(
                rows, step=self.global_steps, scores=signals.get("attention"), entropies=signals.get("entropy")
            )
        )
        given = [next(tokens) if is_real else torch.zeros(1) for is_real in real]
        with handing_over(given):
            return super()._compute_advantage(batch, metrics)

    # ---------------------------------------------------------------- records

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], timing_raw: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, **kwargs)
        own = self.ledger.metrics()
        own.update(self.ledger.rewards.length.metrics(self.global_steps))
        own["bytes/credit"] = float(self._bytes)
        rewards = [record["reward"] for record in self.ledger.last_records if record["reward"] is not None]
        if rewards:
            own["reward"] = sum(rewards) / len(rewards)
        known = {new: float(metrics[old]) for old, new in OWN_NAMES.items() if old in metrics}
        now = time.perf_counter()
        line = {"step": self.global_steps, "seconds": round(now - self._seconds_since, 3), **known, **own}
        self._seconds_since = now
        self.ledger.folder.append("metrics.jsonl", line)
        metrics.update({f"attnpo/{name}": value for name, value in own.items()})

    def _validate(self) -> dict[str, float]:
        """Run verl's validation; write a line of evaluations.jsonl and the responses to the held-out problems."""
        started = time.perf_counter()
        self.ledger.held_out.begin()
        with self._recording_samples():
            metrics = super()._validate()
        self.ledger.held_out.finish(step=self.global_steps, seconds=time.perf_counter() - started)
        self._seconds_since += time.perf_counter() - started
        return metrics

    @contextmanager
    def _recording_samples(self) -> Iterator[None]:
        """Pass every batch of held-out responses to the ledger as well, inside the block."""
        buffer, sample = self.replay_buffer, self.replay_buffer.sample

        def sample_and_record(*args: Any, **kwargs: Any) -> Any:
            batch, metrics = sample(*args, **kwargs)
            self.ledger.evaluate(self._rows(batch, list(batch.keys)), self.global_steps)
            return batch, metrics

        buffer.sample = sample_and_record
        try:
            yield
        finally:
            buffer.sample = sample

    # ---------------------------------------------------------------- checkpoints

    def _checkpoint(self, step: int) -> Path:
        return Path(self.config.trainer.default_local_dir).absolute() / f"global_step_{step}"

    def _save_checkpoint(self) -> None:
        # Ours first: the last file that verl writes marks the checkpoint as complete.
        where = self._checkpoint(self.global_steps)
        where.mkdir(parents=True, exist_ok=True)
        write_whole(where / STATE, json.dumps(self.ledger.state(), indent=1).encode() + b"\n")
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            file = self._checkpoint(self.global_steps) / STATE
            if self.config.trainer.resume_mode == "resume_path":
                file = Path(os.path.abspath(self.config.trainer.resume_from_path)) / STATE
            self.ledger.load_state(file)
            print(f"resuming after step {self.global_steps}, with heads {self.ledger.heads}, {self.ledger.credit}")
        self.ledger.folder.forget_after(self.global_steps)
        self._seconds_since = time.perf_counter()


def put(batch: Any, field: str, rows: list[Tensor]) -> None:
    """Write a field with one ragged row per response into verl's store."""
    values = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    fields = TensorDict({field: values}, batch_size=len(rows))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def plain(column: Any, count: int) -> list[Any]:
    """Return the entries of a column of verl's store that holds no tensors; a list of None for an absent column."""
    if column is None:
        return [None] * count
    entries = column.tolist() if hasattr(column, "tolist") else list(column)
    return [entry.data if isinstance(entry, NonTensorData) else entry for entry in entries]


# -------------------------------------------------------------------- the advantage estimator

_ready: list[Float[Tensor, "N C"]] = []


@contextmanager
def handing_over(rows: Sequence[Float[Tensor, " n"]]) -> Iterator[None]:
    """Make the next call of the estimator inside the block return these advantages: one row per response."""
    _ready.append(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True))
    try:
        yield
    finally:
        _ready.clear()


@register_adv_est("attnpo")
def estimate(
    token_level_rewards: Float[Tensor, "N C"],
    response_mask: Shaped[Tensor, "N C"],
    config: Any = None,
    index: Any = None,
    **_: Any,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """Return (advantages, returns) of every token; `index`: the problem of every response.

    Raises:
        RunError: a problem with missing responses; no `index`; advantages that do not have the batch's shape.
    """
    mask = response_mask.to(token_level_rewards)
    if _ready:
        given = _ready.pop()
        if given.shape != mask.shape:
            raise RunError(f"advantages of shape {list(given.shape)}, expected {list(mask.shape)}, that of the batch")
        # Tokens rejected by rollout correction get no advantage.
        advantages = torch.where(response_mask.bool(), given.to(mask), torch.zeros_like(mask))
        return advantages, advantages
    if index is None:
        raise RunError("adv_estimator attnpo: found no uid in the batch, expected the problem of every response")
    options: Mapping[str, Any] = (config.get("attnpo", None) if config is not None else None) or {}
    outcome = outcome_of(token_level_rewards.sum(dim=1), mask.sum(dim=1).long(), list(index), VerlOptions.of(options))
    advantages = outcome[:, None] * mask
    return advantages, advantages


def outcome_of(
    rewards: Float[Tensor, " N"], lengths: Shaped[Tensor, " N"], uids: list[str], options: VerlOptions
) -> Float[Tensor, " N"]:
    """Return the outcome advantage of every response, from its reward (1: right) and the length reward."""
    size = uids.count(uids[0])
    order = torch.tensor(grouped(uids, list(range(len(uids))), size))
    setup = RewardSetup.build([judged_elsewhere], options)
    table = rewards[order, None]
    if setup.has_length:
        table = torch.cat([table, torch.full_like(table, torch.nan)], dim=1)
    table = setup.add_length_reward(table, lengths[order], size, step=1)
    totals = setup.total(table, torch.ones(table.shape[1]).to(table))
    found = torch.empty_like(rewards)
    found[order] = outcome_advantages(totals.view(-1, size), options.advantage).view(-1).to(found)
    return found
