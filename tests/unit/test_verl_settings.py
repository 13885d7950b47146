"""Types of this package's options in a run on verl: the command line's texts and a recipe's values."""

from __future__ import annotations

import pytest

from attnpo.engines.verl.settings import typed
from attnpo.errors import InputError


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("credit_beta", "2e-1", 0.2),
        ("credit_beta", 2, 2),
        ("credit_delay", "10", 10),
        ("credit_delay", "null", None),
        ("credit_sharp", "true", True),
        ("length_kwargs", "{buffer: 100}", {"buffer": 100}),
        ("credit_threshold", 0.5, "0.5"),
        ("heads", "none", None),
        ("length_reward", "none", "none"),
        ("no_option", 3, 3),
    ],
)
def test_value_has_the_type_of_its_option(name, value, expected):
    found = typed({name: value})[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("credit_beta", "often", "option credit_beta: found 'often', expected float"),
        ("credit_beta", True, "option credit_beta: found True, expected float"),
        ("credit_beta", None, "option credit_beta: found None, expected float"),
        ("heads_count", 2.5, "option heads_count: found 2.5, expected int"),
        ("credit_sharp", 1, "option credit_sharp: found 1, expected bool"),
        ("credit", True, "option credit: found True, expected str"),
        ("heads", [1], r"option heads: found \[1\], expected str"),
        ("credit_delay", "[1", r"option credit_delay: found '\[1': "),
    ],
)
def test_value_of_another_type_is_refused(name, value, message):
    with pytest.raises(InputError, match=message):
        typed({name: value})
