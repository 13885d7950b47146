"""Why a batch of responses teaches nothing, in a sentence that names what to change.

Pure functions on the records of one training step (`attnpo.training.records`); `SignalWatch` in
`attnpo.training.callbacks` shows what they find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnpo.steps.formats import ThinkingFormat
from attnpo.steps.response import never_closed, other_format, told_by
from attnpo.training.records import Record

MOST = 0.9
"""Share of the responses from which on one failing is told although some groups have signal."""

MANY = 32
"""Responses that have to be right, all of them, before it is told although their lengths tell them apart."""

CUT_OFF, UNCLOSED, UNJUDGED, WRONG, RIGHT = "cut off", "not closed", "not judged", "wrong", "right"


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a batch.

    Attributes:
        cause: the state most responses are in (`state_of`), or "equal" where every group is all right or all wrong.
        share: of the responses that are in it.
        message: the share, the likeliest cause and what to change.
        example: one such response beside its problem and reference, some lines.
        without_signal: no response of the batch has an advantage, so the update moves nothing.
    """

    cause: str
    share: float
    message: str
    example: str
    without_signal: bool


def state_of(record: Record, *, thinks: bool = True) -> str:
    """What became of one response: the first of cut off, not closed, not judged, wrong, right that holds.

    A response that was judged right is right, however it ended; one of a model without a thinking part (`thinks`) has
    nothing to close.
    """
    if record["correct"]:
        return RIGHT
    if record["truncated"]:
        return CUT_OFF
    if thinks and not record["answered"] and not record["tokens"]["answer"]:
        return UNCLOSED
    verdict = record.get("verdict")
    if record["reward"] is None or verdict not in (None, "wrong", "judged_wrong"):
        return UNJUDGED
    return WRONG


def has_signal(records: Sequence[Record]) -> bool:
    """Whether any response has an advantage, as a whole or over some of its tokens."""
    return any(record["advantage"] or record.get("mean_token_advantage") for record in records)


def diagnose(
    records: Sequence[Record],
    *,
    limit: int | None,
    moved: bool = False,
    judge: str | None = None,
    thinks: bool = True,
    form: ThinkingFormat | None = None,
) -> Diagnosis | None:
    """What is wrong with the responses of one training step; None: nothing that stands out.

    limit: max_completion_length. moved: the update has a gradient, whatever the advantages say (repairs, …). judge: the
    reward function that says right or wrong. thinks: the model has a thinking part. form: its
    marks.
    """
    if not records:
        return None
    states = [state_of(record, thinks=thinks) for record in records]
    without = not moved and not has_signal(records)
    counts = {state: states.count(state) for state in (CUT_OFF, UNCLOSED, UNJUDGED, WRONG, RIGHT)}
    cause = max(counts, key=lambda state: counts[state])
    failing = cause != RIGHT and counts[cause] >= MOST * len(records)
    always = counts[RIGHT] == len(records) >= MANY
    if not without and not failing and counts[RIGHT] and not always:
        return None
    if without and counts[cause] < MOST * len(records) and counts[RIGHT]:
        cause, share = "equal", 1.0
        example = records[0]
    else:
        share, example = counts[cause] / len(records), records[states.index(cause)]
    message = _MESSAGES[cause](_share(share, len(records)), limit, example)
    if cause == UNCLOSED and form is not None:
        texts = [record["text"] for record, state in zip(records, states, strict=True) if state == UNCLOSED]
        message += f" Of these, {said}." if (said := never_closed(texts, form)) is not None else ""
    if cause == RIGHT and not without:
        message = f"{_share(share, len(records))} are right by {judge}: only their lengths tell them apart."
    if cause == WRONG and (graded := _below_threshold(records, judge)):
        message = f"{_share(share, len(records))} are not right: {graded}"
    if cause in (RIGHT, WRONG):
        message += _other_judges(records, judge)
    if without:
        message += " No response has an advantage: the update moves nothing."
    return Diagnosis(cause, share, message, show_response(example), without)


def wrong_format(records: Sequence[Record], form: ThinkingFormat) -> str | None:
    """What to change where responses end their thinking by the marks of another format, and none by those of `form`.

    None where one of them does, and where there is no such other format. Where unmarked responses are answers, the
    thinking of such a run would count as answer.
    """
    texts = told_by((record["text"], record["truncated"]) for record in records)
    if not form.ends or other_format(texts, form) is None:
        return None
    return never_closed(texts, form)


def _below_threshold(records: Sequence[Record], judge: str | None) -> str:
    """What to change where the function that says right gives something, and never enough; else nothing."""
    values = [row[judge] for record in records if judge in (row := record.get("rewards", {}))]
    if not values or max(values) <= 0:
        return ""
    given = f"{judge} gives {min(values):g} to {max(values):g}"
    return f"{given}, and only 1 is right: --correct_threshold sets another value."


def _other_judges(records: Sequence[Record], judge: str | None) -> str:
    """Which function says right or wrong, in a run of several."""
    others = any(record.get("rewards", {}).keys() - {judge, "length"} for record in records)
    if judge is None or not others:
        return ""
    return f" {judge} says what is right; --correct_reward names another function."


def _share(share: float, responses: int) -> str:
    return f"{share:.0%} of {responses} responses"


_MESSAGES: dict[str, Callable[[str, int | None, Record], str]] = {
    CUT_OFF: lambda share, limit, _: (
        f"{share} were cut off at max_completion_length ({limit} tokens) before a right answer: the limit is too short "
        "for this model. Raise --max_completion_length."
    ),
    UNCLOSED: lambda share, _, __: (
        f"{share} ended without closing their thinking, so they have no final answer: the marks of this model's "
        "thinking were not found. Give its --thinking_format, a chat template that opens it, or --thinking no --credit "
        "outcome for a model that does not think."
    ),
    UNJUDGED: lambda share, _, record: (
        f"{share} could not be judged ({record.get('verdict') or 'the reward functions returned nothing'}). Look at "
        "the references of the data, --reference_column and --verifier_timeout."
    ),
    WRONG: lambda share, _, record: (
        f"{share} are complete and judged wrong, and "
        + ("none" if share.startswith("100") else "hardly any")
        + f" is right: the verifier never says right. Compare the answer below with its reference "
        f"({record.get('reference')!r}): the problems may be too hard, the answer in another form (--prompt_template "
        "can ask for \\boxed{}), or --reference_column another one."
    ),
    RIGHT: lambda share, _, __: (
        f"{share} are right and worth the same: there is nothing to tell apart. Take harder problems, or a length "
        "reward (--length_reward tlmre)."
    ),
    "equal": lambda share, _, __: (
        "Every problem has only right or only wrong responses. More responses per problem (--num_generations) or "
        "problems of middle difficulty give signal."
    ),
}


def show_response(record: Record, *, begin: int = 200, end: int = 300) -> str:
    """Problem, response and reference of one record in a few lines, cut to the parts that tell something."""
    problem, text = record["prompt"].strip(), record["text"]
    if len(text) > begin + end:
        text = f"{text[:begin]} … [{len(text) - begin - end} characters] … {text[-end:]}"
    prompt = problem if len(problem) <= end else f"… {problem[-end:]}"
    return (
        f"prompt: {prompt!r}\nresponse ({record['tokens']['completion']} tokens, {state_of(record)}): {text!r}\n"
        f"reference: {record.get('reference')!r}"
    )
