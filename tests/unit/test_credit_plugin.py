"""A credit method from outside the package, by name from the configuration and as an object."""

from __future__ import annotations

import pytest

from attnpo import AttnPOConfig
from attnpo.credit import base
from attnpo.errors import InputError

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from attnpo.credit.base import CreditResult, mask_padding, register_credit

@register_credit("{name}")
@dataclass(frozen=True)
class Half:
    share: float = 0.5
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, inputs):
        spread = self.share * inputs.advantages[:, None].expand(inputs.step_ids.shape)
        return CreditResult(advantages=mask_padding(spread, inputs.completion_mask))
"""


@pytest.fixture(autouse=True)
def _leave_no_method_behind():
    yield
    base._METHODS.forget("half")


def test_module_and_options_from_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "half_credit.py").write_text(MODULE.format(name="half"))
    monkeypatch.syspath_prepend(str(tmp_path))
    args = AttnPOConfig(
        str(tmp_path), use_cpu=True, credit="half", credit_module="half_credit", credit_kwargs={"share": 0.25}
    )
    assert args.make_credit().share == 0.25  # pyright: ignore[reportAttributeAccessIssue]
    assert AttnPOConfig(str(tmp_path), use_cpu=True, credit="half", credit_kwargs='{"share": 0.75}').make_credit()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit_module": "no_such_module"}, "option credit_module: 'no_such_module' cannot be imported"),
        ({"credit_kwargs": "{"}, "option credit_kwargs: found '{', expected JSON such as"),
        ({"credit_kwargs": "[1]"}, "option credit_kwargs: found [1], expected a mapping"),
        ({"credit_kwargs": {"beta": 1}}, "option credit_kwargs: with credit='attnpo' use the options"),
        (
            {"credit": "outcome", "credit_kwargs": {"size": 1}},
            "size: credit 'outcome' has no such option; it has: none",
        ),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError) as error:
        AttnPOConfig(str(tmp_path), use_cpu=True, **options)
    assert message in str(error.value)
