"""Wrong options of SHAPE and MRT, and their error messages."""

from __future__ import annotations

import pytest

from attnpo.credit.base import get_credit
from attnpo.errors import InputError


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shape", {"segments": 0}, "segments: found 0, expected a whole number"),
        ("shape", {"rollouts": 1.5}, "rollouts: found 1.5"),
        ("shape", {"rollout_batch": 0}, "rollout_batch: found 0"),
        ("shape", {"cuts": "random"}, "cuts: found 'random', expected one of entropy, even, steps"),
        ("shape", {"quantile": 1.1}, r"quantile: found 1.1, expected a number in \[0, 1\]"),
        ("shape", {"threshold": -1}, "threshold: found -1"),
        ("shape", {"closing": None}, "closing: found None, expected a text"),
        ("shape", {"gamma_min": 1.2}, "gamma_min: found 1.2"),
        ("shape", {"weight_min": 0}, "weight_min: found 0, expected more than 0"),
        ("shape", {"weight_max": 0.9}, "weight_max: found 0.9"),
        ("shape", {"reference_length": 0}, "reference_length: found 0"),
        ("shape", {"fixed_discount": 1}, "fixed_discount: found 1, expected true or false"),
        ("mrt", {"progress": "all"}, "progress: found 'all', expected segment or rest"),
        ("mrt", {"beta": 1}, "beta: credit 'mrt' has no such option"),
    ],
)
def test_bad_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_credit(name, **options)
