"""Random exact expressions in random spellings: equal to themselves and unequal to a perturbed one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpo.evaluation.variants import near_misses, respellings
from attnpo.rewards.worker import judge


@dataclass(frozen=True)
class Expression:
    """a/b · √r + c, in LaTeX, and exactly: its rational parts by their radicand."""

    above: int
    below: int
    radicand: int
    added: int

    def spelt(self, style: int) -> str:
        """One of six spellings of the same number."""
        a, b, r, c = self.above, self.below, self.radicand, self.added
        fraction = (rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{2 * a}}}{{{2 * b}}}", f"({a}/{b})")[style % 3]
        root = (rf"\sqrt{{{r}}}", f"√{r}", rf"\sqrt{{{r}}}")[style % 3] if r > 1 else "1"
        root = rf"\frac{{\sqrt{{{4 * r}}}}}{{2}}" if style == 3 else root
        product = rf"{fraction} \cdot {root}"
        if style >= 4:
            return rf"{c} + {product}"
        return f"{product} {'+' if c >= 0 else '-'} {abs(c)}"

    def perturbed(self, by: int) -> Expression:
        return Expression(self.above, self.below, self.radicand, self.added + by)


EXPRESSIONS = st.builds(
    Expression,
    st.integers(1, 99),
    st.integers(2, 99),
    st.sampled_from([1, 2, 3, 5, 6, 7, 10, 11]),
    st.integers(-50, 50),
)


def verdict(answer: str, reference: str) -> str:
    return judge(rf"It is $\boxed{{{answer}}}$.", reference)[0]


@settings(max_examples=25, deadline=None)
@given(EXPRESSIONS, st.integers(0, 5), st.integers(0, 5), st.sampled_from([-1, 1, 10]))
def test_an_expression_is_itself_in_every_spelling_and_no_other(
    expression: Expression, one: int, other: int, by: int
) -> None:
    assert verdict(expression.spelt(one), expression.spelt(other)) == "right"
    assert verdict(expression.perturbed(by).spelt(one), expression.spelt(other)) == "wrong"


@settings(max_examples=100, deadline=None)
@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_as_fractions(ours: Fraction, theirs: Fraction) -> None:
    def spelt(value: Fraction) -> str:
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    assert verdict(spelt(ours), spelt(theirs)) == ("right" if ours == theirs else "wrong")


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip()))
def test_a_letter_for_letter_copy_in_a_box_is_right(text: str) -> None:
    text = "".join(char for char in text if char not in "{}\\\ud800" and not "\ud800" <= char <= "\udfff").strip()
    if text:
        assert verdict(text, text) == "right"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_lists_have_no_order_and_tuples_have(values: list[int], random) -> None:
    shuffled = random.sample(values, len(values))
    written, other = (", ".join(map(str, some)) for some in (values, shuffled))
    assert verdict(other, written) == "right"
    assert verdict(f"({other})", f"({written})") == ("right" if shuffled == values else "wrong")
    assert verdict(", ".join(map(str, values[1:])), written) == "wrong"


@pytest.mark.parametrize(
    "gold", ["72", r"\frac{14}{3}", "(3,4]", r"2\sqrt{5}", "1,-2", "p - q", "y = 2x + 3", r"90^\circ"]
)
def test_every_respelling_is_right_and_every_near_miss_wrong(gold: str) -> None:
    assert [way for way, response in respellings(gold) if judge(response, gold)[0] != "right"] == []
    assert [response for _, response in near_misses(gold) if judge(response, gold)[0] == "right"] == []
