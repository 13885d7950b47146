"""FSDP2 on two CPU processes: the scores captured in a sharded forward equal those of the unsharded model."""

from __future__ import annotations

import pytest

from processes import run_processes


@pytest.mark.slow
def test_scores_of_a_sharded_model():
    run_processes(2, "two_sharded.py", port=25500)
