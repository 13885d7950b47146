"""verl's FSDP engine with one addition: the old-log-prob forward also returns the step scores.

That forward runs the policy that sampled the responses, and computes every token's log-probability anyway.
`actor_rollout_ref.model.external_lib` names this module, so that every worker loads it; `model_type: attnpo` selects
the class.
"""

from __future__ import annotations

from typing import Any

import torch
import verl.models.transformers.monkey_patch as verl_patches
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from attnpo.attention.capture import CapturedScores, capture_scores
from attnpo.attention.layout import PackedLayout, StepLayout
from attnpo.engines.verl.wire import HEADS, SCORES, SPANS, heads_of_text, pack_scores, unpack_spans

# If TRL is installed, verl patches a class that TRL 1.16 no longer has, and fails. This skips the patch.
verl_patches.is_trl_available = lambda: False


@EngineRegistry.register(model_type="attnpo", backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class AttnPOEngine(FSDPEngineWithLMHead):
    """`FSDPEngineWithLMHead` that scores the steps of a batch which contains their positions."""

    def __init__(self, model_config: Any, *args: Any, **kwargs: Any) -> None:
        model_config.model_type = "language_model"  # the value that verl's own code requires
        super().__init__(model_config, *args, **kwargs)
        self._captured: CapturedScores | None = None
        self._steps: list[int] = []

    def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> Any:
        """Run verl's forward step; if the batch has spans and heads, add the step scores to the outputs."""
        heads = tu.get_non_tensor_data(data=micro_batch, key=HEADS, default=None)
        if heads is None or not forward_only:
            return super().forward_step(micro_batch, loss_function, forward_only)
        layout, self._steps = self.layout(micro_batch)  # before the batch is on the device: no synchronisation
        chosen = heads_of_text(heads)
        try:
            with capture_scores(self.module, layout, chosen, group=self.ulysses_parallel_group) as self._captured:
                return super().forward_step(micro_batch, loss_function, forward_only)
        finally:
            self._captured = None

    def layout(self, micro_batch: TensorDict) -> tuple[StepLayout | PackedLayout, list[int]]:
        """Return the positions of steps and answers in the forward's rows, and the number of steps per sequence."""
        found = [unpack_spans(row) for row in micro_batch[SPANS].unbind()]
        steps, answers = [row[0] for row in found], [row[1] for row in found]
        lengths = micro_batch["input_ids"].offsets().diff().tolist()
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        layout: StepLayout | PackedLayout
        if packed:
            width = sum(lengths)
            width += self._get_packed_pad_size(width)
            width += -width % self.ulysses_sequence_parallel_size
            layout = PackedLayout.from_spans(steps, answers, [lengths], width)
        else:
            inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            layout = StepLayout.from_spans(steps, answers, inside)
        device = next(self.module.parameters()).device
        return layout.to(device), [len(row) for row in steps]

    def prepare_model_outputs(self, output: Any, output_args: Any, micro_batch: TensorDict, logits_processor_func: Any):
        model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if self._captured is not None:
            rows = pack_scores(self._captured.scores.mean(dim=0), self._steps)
            model_output[SCORES] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        return model_output
