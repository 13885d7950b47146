"""Length rewards: terms that depend on the length of a response, added to its accuracy of 1 or 0. One file per method.

Like `credit/`, this package imports neither TRL nor the command line.
"""

from attnpo.rewards.length.base import (
    LengthInputs,
    LengthReward,
    get_length_reward,
    length_reward_names,
    length_reward_options,
    register_length_reward,
)
from attnpo.rewards.length.tlmre import tlmre_penalty, tlmre_rewards

__all__ = [
    "LengthInputs",
    "LengthReward",
    "get_length_reward",
    "length_reward_names",
    "length_reward_options",
    "register_length_reward",
    "tlmre_penalty",
    "tlmre_rewards",
]
