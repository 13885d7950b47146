"""Responses to repair and their anchors, scores of candidates, the audit's rules, and the prompts."""

from __future__ import annotations

import pytest

from attnpo.credit.iop.audit import Case, audit_by_rules, check_audit, make_audit
from attnpo.credit.iop.repairs import (
    PROMPTS,
    Plan,
    best,
    check_prompt,
    choose_anchor,
    edit_distance,
    plan_repairs,
    repair_prompt,
    score,
)
from attnpo.errors import InputError

IDS = [[1, 2, 3, 4], [1, 2], [1, 2, 3], [1, 2, 9, 4]]


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ([True, False, True, False], Plan(repairs=[(1, 2), (3, 2)])),  # response 2 is the shortest right one
        ([False, False, False, True], Plan(repairs=[(0, 3), (1, 3), (2, 3)])),
        ([True] * 4, Plan(fallback=[0, 1, 2, 3], fallback_groups=1)),
        ([False] * 4, Plan(fallback=[0, 1, 2, 3], fallback_groups=1)),  # no anchor
        ([None] * 4, Plan(fallback=[0, 1, 2, 3], fallback_groups=1)),
        ([None, True, None, None], Plan(fallback=[0, 1, 2, 3], fallback_groups=1)),
        ([None, True, None, False], Plan(repairs=[(3, 1)])),  # what nobody could judge is left out
    ],
)
def test_plan_of_one_group(correct, expected) -> None:
    assert plan_repairs(correct, IDS, 4) == expected


def test_groups_are_apart() -> None:
    plan = plan_repairs([True, False, False, False], IDS, 2)
    assert plan == Plan(repairs=[(1, 0)], fallback=[2, 3], fallback_groups=1)


def test_only_the_first_wrong_ones() -> None:
    plan = plan_repairs([False, True, False, False], IDS, 4, max_repairs=2)
    assert plan == Plan(repairs=[(0, 1), (2, 1)], untried=1)


def test_nearest_anchor() -> None:
    assert choose_anchor(3, [0, 1, 2], IDS, "nearest") == 0  # one edit from [1, 2, 3, 4]
    assert choose_anchor(3, [0, 1, 2], IDS, "shortest") == 1
    assert choose_anchor(0, [2, 3], [[1, 2], [5], [1, 3], [1, 4]], "nearest") == 2  # ties: the first
    with pytest.raises(InputError, match=r"^anchor: found 'best', expected shortest or nearest"):
        choose_anchor(3, [0], IDS, "best")


def test_scores() -> None:
    # two of four tokens differ: 1 − 0.5 · 0.5
    assert score(True, True, edit_distance([1, 2, 3, 4], [1, 9, 9, 4]), 0.5) == 0.75
    assert score(True, True, 1.0, 1.0) == 0
    assert score(True, True, 1.0, 0.0) == 1
    assert score(True, False, 0.0, 0.5) == score(False, True, 0.0, 0.5) == score(False, False, 0.0, 0.5) == 0


def test_best_candidate() -> None:
    assert best([0.75, 0.9, 0.9], [True, True, True]) == 1
    assert best([0.75, 0.9, 0.9], [True, False, False]) == 0
    assert best([0.0, 0.0], [False, True]) == 1  # λ_edit = 1 and nothing in common: usable all the same
    assert best([0.75], [False]) is None
    assert best([], []) is None


WRONG = "12 + 30 is easy: 41, and that was all that had to be done here.</think>The answer is 41."
ANCHOR = "Take 30 and count up by 12, which ends at 42, and so that is it.</think>The answer is 42."
AUDITED = {
    "repaired": ("12 + 30 is easy: 42, and that was all that had to be done here.</think>The answer is 42.", None),
    "only the answer": (WRONG.replace("answer is 41", "answer is 42"), "pasted"),
    "only the answer and white space": ("\n " + WRONG.replace("answer is 41", "answer is  42"), "pasted"),
    "the anchor": (ANCHOR, "copied"),
    "the anchor's thinking": (ANCHOR.replace("The answer is", "It is"), "copied"),
    "no closing tag": ("12 + 30 is easy: 42, and that was all", "no thinking"),
    "empty thinking": (" \n</think>The answer is 42.", "no thinking"),
    "opened and closed": ("<think>\n</think>The answer is 42.", "no thinking"),
    "hardly any thinking": ("It is 42.</think>The answer is 42.", "too short"),
    "an opening tag does not matter": ("<think>" + WRONG.replace("answer is 41", "answer is 42"), "pasted"),
}


@pytest.mark.parametrize("name", AUDITED)
def test_rules_of_the_audit(name) -> None:
    repaired, reason = AUDITED[name]
    assert audit_by_rules([Case("12 + 30?", WRONG, repaired, ANCHOR)]) == [reason]


def test_audits_by_name() -> None:
    cases = [Case("12 + 30?", WRONG, ANCHOR, ANCHOR)] * 2
    assert make_audit("rules")(cases) == ["copied", "copied"]
    assert make_audit("none")(cases) == [None, None]
    assert make_audit("attnpo.credit.iop.audit:no_audit")(cases) == [None, None]


@pytest.mark.parametrize(
    ("name", "judge", "message"),
    [
        ("rule", None, "audit: found 'rule', expected rules, judge, none, or module:function"),
        ("judge", None, "judge: none is given, expected URL#MODEL"),
        ("rules", "http://x/v1#m", "judge: found 'http://x/v1#m', but audit='rules' asks none"),
        ("no.such.module:audit", None, "audit: 'no.such.module:audit' cannot be imported"),
        ("attnpo.credit.iop.audit:nothing", None, "audit: 'attnpo.credit.iop.audit:nothing' cannot be imported"),
    ],
)
def test_bad_audits(name, judge, message) -> None:
    with pytest.raises(InputError, match=message):
        make_audit(name, judge=judge)


def test_a_conversation_keeps_its_form() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    asked = repair_prompt(prompt, wrong="{anchor} 3 \\boxed{3}\n", anchor="2", template="{problem}|{wrong}|{anchor}")
    # Braces in a value are not read as a field.
    assert asked == [prompt[0], {"role": "user", "content": "1 + 1?|{anchor} 3 \\boxed{3}|2"}]
    assert prompt[1]["content"] == "1 + 1?"


def test_a_text_keeps_its_end() -> None:
    prompt = "Problem: 1 + 1?\n<think>\n"
    asked = repair_prompt(prompt, wrong="3", anchor="2", template="brief", problem="1 + 1?")
    assert asked == "1 + 1?\n\nWrong: 3\n\nRight: 2\n\nRepair:\n\nProblem: 1 + 1?\n<think>\n"
    assert repair_prompt("1 + 1?", wrong="3", anchor="2", template="brief").startswith("1 + 1?\n\nWrong: 3")


@pytest.mark.parametrize("name", PROMPTS)
def test_shipped_prompts(name) -> None:
    check_prompt(name)
    (message,) = repair_prompt([{"role": "user", "content": "P?"}], wrong="W!", anchor="A!", template=name)
    assert all(piece in message["content"] for piece in ("P?", "W!", "A!"))
    assert "{" not in message["content"]


@pytest.mark.parametrize("prompt", ["briefly", "{problem} {wrong}", "", None])
def test_bad_prompts(prompt) -> None:
    with pytest.raises(InputError, match="prompt: found"):
        check_prompt(prompt)


def test_a_name_must_not_take_a_judge() -> None:
    check_audit("judge", "http://x/v1#m")
    check_audit("my.module:audit", None)
