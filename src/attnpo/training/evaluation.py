"""Evaluation on held-out problems, kept apart from training."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import set_seed
from transformers.trainer_utils import has_length

from attnpo.training.recording import RecordedRollouts, evaluation_metrics
from attnpo.training.records import Record, add_credit
from attnpo.training.trackers import start_trackers


@contextmanager
def isolated_random_state(seed: int):
    """Run with `seed`, then put back every random state, so that evaluating never changes a training run."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - transformers seeds it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        try:
            set_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


class HeldOutEvaluation(RecordedRollouts):
    """Samples held-out problems, writes evaluations.jsonl and the responses; computes no loss."""

    num_generations_eval: int
    _eval_records: list[Record]  # of this process
    _all_eval_records: list[Record]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Sample every held-out problem, the same ones with the same seed each time.

        Several sets (a dict of them) have a line of evaluations.jsonl each, with their name as `set`.

        Training's random state is put back afterwards, so a run is the same with and without evaluations.
        """
        self._eval_records, self._all_eval_records = [], []
        start_trackers(self)
        with isolated_random_state(self.args.seed + self.accelerator.process_index):
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        started = time.perf_counter()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        records = self._all_eval_records
        loader = args[0] if args else kwargs["dataloader"]
        if has_length(loader.dataset):
            # Where the problems do not fill the last round of batches, accelerate repeats the first ones.
            records = records[: len(loader.dataset) * self.num_generations_eval]
        metrics = evaluation_metrics(records, self.args.lexicon)
        if self.accelerator.is_main_process:
            step, seconds = self.state.global_step, round(time.perf_counter() - started, 3)
            name = metric_key_prefix.removeprefix("eval").removeprefix("_")  # one of several sets
            of_set = {"set": name} if name else {}
            self.folder.append("evaluations.jsonl", {"step": step, **of_set, **metrics, "seconds": seconds})
            self.folder.write_rollouts(f"eval-{step:06d}" + (f"-{name}" if name else ""), records)
        assert output.metrics is not None
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Generate and grade. No loss: it would cost a forward and mean nothing without a group."""
        before = len(self._eval_records)
        self._prepare_inputs(inputs)
        # Batch by batch, the processes' records come in the order of the problems.
        self._all_eval_records += gather_object(self._eval_records[before:])
        return None, None, None

    def _score_examples(self, output: dict[str, Any], records: list[Record]) -> None:
        """Score the steps of the first held-out responses, so that the same problems can be compared over the run."""
        wanted = min(self.args.eval_examples - len(self._eval_records), len(records))
        if wanted <= 0 or self.heads is None:
            return
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)[:wanted]
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)[:wanted]
        with torch.no_grad(), self._collecting(True):
            self._get_per_token_logps_and_entropies(self.model, ids, mask, output["completion_ids"].shape[1])
        assert self._signals is not None
        for record, scores in zip(records, self._signals["attention"].tolist(), strict=False):
            add_credit(record, {"scores": scores})
