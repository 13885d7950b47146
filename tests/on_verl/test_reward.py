"""The reward manager with many responses at once."""

from __future__ import annotations

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from attnpo.engines.verl.reward import VerifiedReward
from attnpo.rewards.verdict import Verdict


class SlowVerifier:
    """Slowly returns the verdict named by the reference; `last_verdicts` as in `AccuracyReward`."""

    last_verdicts: list[Verdict]

    def __call__(self, completions, completion_ids, reference):
        self.last_verdicts = [Verdict(reference[0])]
        time.sleep(0.01)


def test_every_response_gets_its_own_verdict():
    manager = VerifiedReward.__new__(VerifiedReward)
    manager._verifier, manager._one_at_a_time = SlowVerifier(), Lock()
    expected = [verdict.value for verdict in Verdict] * 5
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda value: manager._verdict([1], value), expected)) == expected
