"""Numbers with units, bases, measured quantities, and formulas that math-verify alone reads in part."""

from __future__ import annotations

import math

import pytest
import sympy

from attnpo.rewards.boxed import boxed_texts
from attnpo.rewards.closeness import Rules, is_close, tolerance_of
from attnpo.rewards.quantities import bare_number
from attnpo.rewards.worker import judge


def verdict(box: str, reference: str, rules: Rules | None = None) -> str:
    return judge(rf"So the answer is $\boxed{{{box}}}$.", reference, rules)[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 dollars", "3"),
        ("£1,200", "1200"),
        (r"\$5", "5"),
        ("5 km/h", "5"),
        (r"v = 5\,\text{m/s}^2", "5"),
        ("12 000", "12000"),
        (r"\approx 5", "5"),
        ("about 5 cm²", "5"),
        (r"-5^{\circ}C", "-5"),
        (r"\text{5 apples}", "5"),
        ("5 kilometres per hour.", "5"),
        ("5x", None),
        ("5 x", None),
        ("5i", None),
        (r"5\pi", None),
        ("5 million", None),
        ("5 and a half", None),
        ("5 squared", None),
        ("5/6", None),
        ("5, 6", None),
        ("5 or 6", None),
        ("10:30", None),
        ("5 " + "metre " * 100_000, None),
    ],
)
def test_bare_number(text: str, number: str | None) -> None:
    assert bare_number(text) == number


@pytest.mark.parametrize(
    ("box", "reference"),
    [
        ("3 dollars", "3"),
        ("45 km/h", "45"),
        ("5 m", "5m"),  # five times m, as the reference has it
        ("033", "33"),
        ("27.0", "27"),
        ("33.", "33"),
        (r"4.5 \times 10^{33}", "4.5e33"),
        ("4.5e33", r"4.5 \cdot 10^{33}"),
        ("10^{-5}", "1e-5"),
        (r"-\frac{1}{3}", "-1./3"),
        ("0.333333", r"\frac{1}{3}"),
        ("52_{8}", "52_8"),
        ("52", "52_8"),
        ("84, 69", "69, 84"),
        (r"69}$ and $\boxed{84", "69,84"),
        (r"\pm 2, 0", "-2,0,2"),
        (r"3 + 2\sqrt{2}, 3 - 2\sqrt{2}", r"3 \pm 2 \sqrt{2}"),
        (r"0 < t \le 4", "(0,4]"),
        (r"t \le 4", r"(-\infty,4]"),
        (r"4 < x", r"(4,\infty)"),
        (r"b v + m\frac{dv}{dt} = f", r"m \frac{d v}{d t}+b v=f"),
        ("E_2, E_1", "E_{1},E_{2}"),
        ("m_{max}=n^2-n-1", r"m_{\max }=n^{2}-n-1"),
    ],
)
def test_right(box: str, reference: str) -> None:
    assert verdict(box, reference) == "right"


@pytest.mark.parametrize(
    ("box", "reference"),
    [
        ("5 million", "5"),
        ("5x", "5"),
        ("52_9", "52_8"),
        ("69", "69,84"),
        ("69, 84, 90", "69,84"),
        ("(4,2)", "(2,4)"),
        ("[3,4)", "(3,4]"),
        ("-1 < x < 3", r"-1 < x \le 3"),
        (".0000673", ".0000672"),  # equal when both are rounded to six decimals
        ("2.88e-19", "1.325e-27"),
        ("0", "1e-8"),
        ("b v = f", r"m \frac{d v}{d t}+b v=f"),  # dv/dt of bare symbols would be 0
        (r"\hbar \omega(v+1/2)+\frac{E_0^2 e^2}{2 m \omega^2}", r"\hbar \omega(v+1/2)-\frac{E_0^2 e^2}{2 m \omega^2}"),
        (r"\frac{2}{3} E_{2}", r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}"),
        (r"1 + \frac{5}{", "5"),  # a box that cannot be read is not searched for a number
        ("E_1", "E_2"),
    ],
)
def test_wrong(box: str, reference: str) -> None:
    assert verdict(box, reference) == "wrong"


@pytest.mark.parametrize("text", [r"\boxed {5}", r"\boxed5", r"\fbox{5}"])
def test_boxes_in_another_spelling(text: str) -> None:
    assert judge(f"So {text}.", "5")[0] == "right"


@pytest.mark.parametrize(
    ("reference", "tolerance"),
    [
        ("3.61e-10", 0.005e-10),
        ("1.6", 0.016),  # half a unit would be 3 %
        ("4e33", 0.01 * 4e33),
        ("-0.125", 0.0005),
        ("20", 0.0),
        ("-3", 0.0),
        (r"\frac{1}{3}", 0.0),
        ("x", 0.0),
    ],
)
def test_measured_quantities_may_be_off_by_half_a_digit_or_one_percent(reference: str, tolerance: float) -> None:
    assert math.isclose(tolerance_of(reference, {"measured": True}), tolerance, rel_tol=1e-9)
    assert tolerance_of(reference, {}) == 0


def test_tolerance_decides_at_its_edge() -> None:
    assert tolerance_of("4.2", {"tolerance": 0.1}) == 0.1
    gold = sympy.Rational(42, 10)
    assert is_close(gold, sympy.Float("4.3"), 0.1)
    assert not is_close(gold, sympy.Float("4.31"), 0.1)
    assert not is_close(gold, sympy.I, 10)
    assert not is_close(gold, sympy.Symbol("x"), 10)


def test_rules_of_a_comparison() -> None:
    assert verdict(r"1.59 \mathrm{~cm}", "1.6", {"measured": True}) == "right"
    assert verdict("1.5", "1.6", {"measured": True}) == "wrong"
    assert verdict("1.59", "1.6") == "wrong"
    assert verdict(r"4.2\%", "4.2", {"unit": "%", "tolerance": 0.1}) == "right"
    assert verdict("4.15", "4.2", {"unit": "%", "tolerance": 0.1}) == "right"
    assert verdict("4.5", "4.2", {"unit": "%", "tolerance": 0.1}) == "wrong"


def test_what_is_read_is_handed_back() -> None:
    assert judge(r"\boxed{4} no, \[ \boxed{ \dfrac{1}{2} } \]", "0.5")[1] is not None
    assert judge(r"It is \boxed{\dfrac{1}{2}}.", "0.5")[1] == r"\dfrac{1}{2}"
    assert judge("I cannot say.", "0.5") == ("no_answer", None)
    assert len(judge(r"\boxed{" + "1+" * 300 + "1}", "3")[1] or "") == 500


def test_boxes_may_hold_braces_and_stay_open() -> None:
    assert boxed_texts(r"\boxed{\{1, 2\}} \boxed{\frac{a}{b_{c}}}") == [r"\{1, 2\}", r"\frac{a}{b_{c}}"]
    assert boxed_texts(r"\boxed{1 \boxed{2}") == []
    assert boxed_texts(r"\boxed{" * 50_000) == []
