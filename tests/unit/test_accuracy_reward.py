"""The reward in TRL's shape. The pool is replaced by a recorder where only the plumbing is looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward, completion_text
from attnpo.rewards.verdict import Verdict
from attnpo.steps.formats import THINK, load_format
from attnpo.steps.response import decode_completion


class FakePool:
    """Right if the answer contains the reference."""

    def __init__(self) -> None:
        self.items: list[tuple[str | None, str | None]] = []

    def verify(self, items) -> list[Verdict]:
        self.items = list(items)
        return [
            Verdict.NO_ANSWER
            if a is None
            else Verdict.UNVERIFIABLE
            if r is None
            else Verdict("right" if r in a else "wrong")
            for a, r in self.items
        ]


class FakeTokenizer:
    """Ids are characters, but for `</think>` (1), the end (2) and padding (3), all special."""

    eos_token_id, pad_token_id, all_special_ids = 2, 3, (1, 2, 3)
    names = {1: "</think>", 2: "<|end|>", 3: "<|pad|>"}  # noqa: RUF012

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return {name: index for index, name in self.names.items()}.get(token)

    def decode(self, ids: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        assert not skip_special_tokens
        assert not clean_up_tokenization_spaces
        return "".join(self.names.get(i) or chr(i) for i in ids)


@pytest.fixture
def fake() -> FakePool:
    return FakePool()


@pytest.fixture(scope="module")
def real() -> Iterator[AccuracyReward]:
    reward = AccuracyReward()
    yield reward
    reward.close()


def test_real_verification(real: AccuracyReward) -> None:
    completions = [
        "<think>2+3</think>It is \\boxed{5}.",
        "thinking, opened by the prompt</think>\\boxed{6}",
        "the answer \\boxed{5} stands in unfinished thinking",
        "</think>  ",
        "</think>\\boxed{5}",
    ]
    found = real(prompts=["?"] * 5, completions=completions, reference=["5", "5", "5", "5", None])
    assert found == [1.0, 0.0, 0.0, 0.0, None]
    assert real.last_verdicts == ["right", "wrong", "no_answer", "no_answer", "unverifiable"]
    assert real.__name__ == "accuracy"
    assert real.validate_references(["1", "x^"]) == ["x^"]


def test_the_answer_is_what_follows_the_first_closing_tag(fake: FakePool) -> None:
    AccuracyReward(fake)(completions=["a</think>b</think>c", "d"], reference=["x", 7])  # type: ignore[arg-type]
    assert fake.items == [("b</think>c", "x"), (None, "7")]


def test_conversational_completions(fake: FakePool) -> None:
    completions = [
        [{"role": "assistant", "content": "a</think>5"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "a</think>"}, {"type": "text", "text": "5"}]}],
        [{"role": "assistant", "content": "5", "reasoning_content": "a"}],
        [{"role": "assistant", "content": "x"}, {"role": "tool", "content": "y"}, {"content": "</think>5"}],
        [{"role": "assistant", "content": None}],
    ]
    found = AccuracyReward(fake)(completions=completions, reference=["5"] * 5)  # type: ignore[arg-type]
    assert found == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_completion_of_another_type() -> None:
    with pytest.raises(InputError, match="completion: found a int"):
        completion_text(5)


def test_closing_tag_that_is_a_special_token_is_read_from_the_ids(fake: FakePool) -> None:
    ids = [*map(ord, "hm"), 1, *map(ord, "5"), 2, 3, 3]
    reward = AccuracyReward(fake, tokenizer=FakeTokenizer())  # type: ignore[arg-type]
    assert reward(completions=["hm5"], completion_ids=[ids], reference=["5"]) == [1.0]
    assert fake.items == [("5", "5")]
    assert AccuracyReward(fake)(completions=["hm5"], completion_ids=[ids], reference=["5"]) == [0.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "text"),
    [([97, 1, 2, 3], "a</think>"), ([97, 1], "a</think>"), ([2, 97, 2], "<|end|>a"), ([3, 2], ""), ([], "")],
)
def test_only_ending_tokens_are_dropped(ids: list[int], text: str) -> None:
    assert decode_completion(FakeTokenizer(), ids) == text


def test_missing_column_names_it_and_those_found(fake: FakePool) -> None:
    reward = AccuracyReward(fake, column="answer")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no column 'answer' with reference answers; it has: level, solution"):
        reward(completions=["x"], solution=["1"], level=[1], trainer_state=object())
    with pytest.raises(InputError, match="found 1 references for 2 completions"):
        reward(completions=["x", "y"], answer=["1"])


def test_logs_verdicts_for_trl(fake: FakePool) -> None:
    """As a column of TRL's table of completions; counts are the trainer's business, which averages what it is given."""
    extras: dict[str, list] = {}
    AccuracyReward(fake)(  # type: ignore[arg-type]
        completions=["</think>5", "</think>6", "</think>5", "5"],
        reference=["5"] * 4,
        log_extra=extras.__setitem__,
        log_metric=lambda name, value: pytest.fail(f"{name} would be averaged with the trainer's counts"),
    )
    assert extras == {"verdict": ["right", "wrong", "right", "no_answer"]}


def answers_of(fake: FakePool, *calls: list, **options) -> list[str | None]:
    """What the last call was verified on."""
    reward = AccuracyReward(fake, **options)  # type: ignore[arg-type]
    for completions in calls:
        reward(completions=completions, reference=["5"] * len(completions))
    return [answer for answer, _ in fake.items]


HARMONY = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>5<|return|>"


def test_without_a_tokenizer_responses_are_read_by_their_marks(fake: FakePool) -> None:
    assert (
        answers_of(fake, [HARMONY, "[THINK]a[/THINK]5", "<reasoning>a</reasoning><answer>5</answer>", "5"]) == ["5"] * 4
    )
    assert answers_of(fake, ["it is 5", "5"]) == ["it is 5", "5"]  # no model that thinks
    # Where one format is usual, what lacks its end is unfinished, also in later calls.
    assert answers_of(fake, ["<thought>a</thought>5", "<thought>a", "5"]) == ["5", None, None]
    assert answers_of(fake, ["[THINK]a[/THINK]5", "[THINK]a", "5"]) == ["5", None, "5"]  # opens it itself, if it thinks
    assert answers_of(fake, ["a</think>5"] * 3, ["write <answer>5</answer>", "5", "a</think>5"]) == [None, None, "5"]


def test_given_format_is_used(fake: FakePool) -> None:
    given = ["[THINK]a[/THINK]5", "a</think>5", "5"]
    assert answers_of(fake, given, form=THINK) == [None, "5", None]
    assert answers_of(fake, given, form=load_format("mistral")) == ["5", "a</think>5", "5"]
    assert answers_of(fake, given, form=load_format("none")) == given


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning": "7*3", "content": "5"},
        {"thinking": "7*3", "content": "5"},
        {"content": [{"type": "thinking", "thinking": "7*3"}, {"type": "text", "text": "5"}]},
        {"reasoning_content": "he wrote </think> here", "content": "5"},
    ],
)
def test_content_of_a_message_with_separate_thinking_is_the_answer(fake: FakePool, message) -> None:
    assert answers_of(fake, [[{"role": "assistant", **message}]]) == ["5"]
    assert answers_of(fake, [[{"role": "assistant", **message}]], form=THINK) == ["5"]
