"""The check of rows in verl's columns before a run."""

from __future__ import annotations

import pytest

from attnpo.engines.verl.data import check_row
from attnpo.errors import InputError

ROW = {
    "data_source": "x",
    "prompt": [{"role": "user", "content": "1 + 1?"}],
    "reward_model": {"ground_truth": "2"},
}


@pytest.mark.parametrize("agent", ["tool_agent", None, ""])
def test_another_agent_loop_is_refused(agent):
    with pytest.raises(InputError, match=r"mine: row 3: column 'agent_name' is .*, expected 'single_turn_agent'"):
        check_row({**ROW, "agent_name": agent}, "mine: row 3", "prompt")


def test_the_single_turn_agent_is_taken():
    check_row(ROW, "mine: row 3", "prompt")
    check_row({**ROW, "agent_name": "single_turn_agent"}, "mine: row 3", "prompt")
