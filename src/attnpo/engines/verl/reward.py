"""A reward manager for verl that verifies answers with this package's verifier.

verl's own managers decode without special tokens, and in some models `</think>` is one: every answer would be lost.
This one decodes the sampled ids, extracts the answer with the model's thinking format and returns the verdict as well,
so that a response whose answer could not be verified counts as missing and not as wrong.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from attnpo.engines.verl.ledger import judged
from attnpo.engines.verl.options import VerlOptions
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.detect import choose_format


class VerifiedReward(RewardManagerBase):
    """Reward 1 for an answer that the verifier finds right, else 0; `reward_extra_info` has `acc` and `verdict`."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        options = VerlOptions.of(OmegaConf.to_container(config.attnpo, resolve=True))
        template = dict(config.data.get("apply_chat_template_kwargs", None) or {})
        form = choose_format(options.thinking_format, tokenizer, template_options=template).form
        pool = VerifierPool(1, timeout=options.verifier_timeout)  # one process each: verl runs several managers
        self._verifier = AccuracyReward(pool, tokenizer=tokenizer, form=form)
        self._one_at_a_time = Lock()  # verl verifies many responses at once, each in a thread

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Verify one response: the last sequence of `data`."""
        item = data[-1]
        ids = item.batch["responses"]
        count = int(item.batch["attention_mask"][-len(ids) :].sum())
        reference = item.non_tensor_batch["reward_model"]["ground_truth"]
        verdict = await self.loop.run_in_executor(None, self._verdict, ids[:count].tolist(), reference)
        reward = judged(0.0, verdict)
        reward = 0.0 if reward != reward else reward  # verl has no missing rewards; the verdict marks them
        return {"reward_score": reward, "reward_extra_info": {"acc": reward, "verdict": verdict}}

    def _verdict(self, ids: list[int], reference: Any) -> str:
        with self._one_at_a_time:  # the next call overwrites last_verdicts
            self._verifier(completions=[""], completion_ids=[ids], reference=[reference])
            return self._verifier.last_verdicts[0].value
