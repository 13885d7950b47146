"""The functions and names of verl 0.9.1 that this engine overrides or uses internally.

If a new release of verl changes any of these, review it before changing `checks.VERL`.
"""

from __future__ import annotations

import inspect
import os
import re

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import pytest
import transfer_queue
import verl
import verl.trainer.main_ppo as main_ppo
import verl.utils.distributed
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.models.transformers import monkey_patch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

import attnpo.engines.verl.engine
import attnpo.engines.verl.trainer
from attnpo.engines.verl.checks import VERL

SIGNATURES = {
    FSDPEngineWithLMHead.forward_step: "(self, micro_batch: TensorDict, loss_function, forward_only)",
    FSDPEngineWithLMHead.prepare_model_outputs: "(self, output, output_args, micro_batch, logits_processor_func)",
    FSDPEngine._get_packed_pad_size: "(self, packed_length: int) -> int",
    PPOTrainer._compute_old_log_prob: "(self, batch, metrics: dict)",
    PPOTrainer._compute_advantage: "(self, batch, metrics: dict)",
    PPOTrainer._compute_metrics: "(self, batch, metrics, timing_raw, global_steps, epoch)",
    PPOTrainer._init_dataloader: "(self)",
    PPOTrainer._load_checkpoint: "(self)",
    PPOTrainer._save_checkpoint: "(self)",
    PPOTrainer._validate: "(self)",
    RewardManagerBase.run_single: "(self, data)",
    BaseRollout.update_weights: "(self, weights, wire_format='named_tensors', **kwargs)",
    RolloutReplica.launch_servers: "(self)",
    verl.utils.distributed.initialize_global_process_group_ray: "(timeout_second=None, backend=None)",
    main_ppo.run_ppo: "(config, task_runner_class) -> None",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signature(function):
    expected = re.findall(r"(\w+)(?:: \w+)?(?:=[^,)]+)?[,)]", SIGNATURES[function].split(" ->")[0])
    assert list(inspect.signature(function).parameters) == expected


def test_release():
    assert verl.__version__ == VERL
    assert transfer_queue.__version__.startswith("0.1.")


def test_registered():
    assert get_trainer_cls("attnpo") is attnpo.engines.verl.trainer.AttnPOTrainerSync
    assert issubclass(get_trainer_cls("attnpo"), PPOTrainerSync)
    assert get_adv_estimator_fn("attnpo") is attnpo.engines.verl.trainer.estimate
    assert EngineRegistry.get_engine_cls("attnpo", "fsdp2") is attnpo.engines.verl.engine.AttnPOEngine


def test_names_used_inside_verl_functions():
    """Names inside of functions that this engine relies on."""
    said = {
        PPOTrainer._compute_old_log_prob: ["actor_rollout_wg.compute_log_prob(batch)", '"calculate_entropy": True'],
        PPOTrainer._compute_advantage: ["compute_advantage_for_multi_trajectories", "response_to_nested"],
        PPOTrainer._validate: ["self.replay_buffer.sample("],
        PPOTrainer._load_checkpoint: ["self.global_steps = 0"],
        compute_advantage: ['adv_kwargs["index"] = data.non_tensor_batch["uid"]'],
        main_ppo.run_ppo: ["runner = task_runner_class.remote()", "ray.get(runner.run.remote(config))"],
        monkey_patch.apply_monkey_patch: ["if is_trl_available():"],
        FSDPEngineWithLMHead.forward_step: ["self.prepare_model_inputs(", "self.module("],
    }
    for function, parts in said.items():
        source = inspect.getsource(function)
        for part in parts:
            assert part in source, (function.__qualname__, part)
    assert "extra_fields" in TokenOutput.model_fields
    assert hasattr(main_ppo.TaskRunnerV1.__ray_metadata__, "modified_class")


def test_order_of_calls_in_a_training_step():
    """Which parts follow one another in a step: old log-probabilities, advantage, update."""
    source = inspect.getsource(PPOTrainer._step_once)
    order = [
        source.index(f"self.{name}(")
        for name in ("_balance_batch", "_compute_old_log_prob", "_compute_advantage", "_update_actor")
    ]
    assert order == sorted(order)
