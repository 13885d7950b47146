"""Diagnoses of batches that teach nothing: a sentence with the cause and what to change.

Pure functions on the records of one training step (`attnpo.training.records`); `SignalWatch` in
`attnpo.training.callbacks` prints the diagnoses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnpo.steps.formats import ThinkingFormat
from attnpo.steps.response import finished_texts, never_closed, other_format
from attnpo.training.records import Record

MOST = 0.9
"""Share of the responses from which a failure is reported although some groups have signal."""

MANY = 32
"""Number of responses, all right, from which this is reported although their lengths distinguish them."""

CUT_OFF, UNCLOSED, UNJUDGED, WRONG, RIGHT = "cut off", "not closed", "not judged", "wrong", "right"


@dataclass(frozen=True)
class Diagnosis:
    """A problem of a batch.

    Attributes:
        cause: the state of most responses (`state_of`), or "equal" where every group is all right or all wrong.
        share: share of the responses in this state.
        message: the share, the most likely cause and what to change.
        example: one such response with its problem and reference, a few lines.
        without_signal: no response of the batch has an advantage, so the update changes nothing.
    """

    cause: str
    share: float
    message: str
    example: str
    without_signal: bool


def state_of(record: Record, *, thinks: bool = True) -> str:
    """Return the outcome of one response: the first that applies of cut off, not closed, not judged, wrong, right.

    A response that was judged right is right, however it ended; one of a model without a thinking part (`thinks` false)
    is never "not closed".
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
    """Whether any response has an advantage, for all or some of its tokens."""
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
    """Diagnose the responses of one training step; None: no problem found.

    limit: max_completion_length. moved: the update has a gradient whatever the advantages are (repairs, …). judge: the
    reward function that decides right or wrong. thinks: the model has a thinking part. form: its marks.
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
        message += f" Of these, {marks}." if (marks := never_closed(texts, form)) is not None else ""
    if cause == RIGHT and not without:
        message = f"{_share(share, len(records))} are right by {judge}: only their lengths distinguish them."
    if cause == WRONG and (graded := _below_threshold(records, judge)):
        message = f"{_share(share, len(records))} are not right: {graded}"
    if cause in (RIGHT, WRONG):
        message += _other_judges(records, judge)
    if without:
        message += " No response has an advantage: the update changes nothing."
    return Diagnosis(cause, share, message, show_response(example), without)


def wrong_format(records: Sequence[Record], form: ThinkingFormat) -> str | None:
    """Return what to change where responses end their thinking by the marks of another format, and none by `form`'s.

    None where one of them ends by those of `form`, and where no other format matches. Such thinking would count as
    answer where unmarked responses are answers.
    """
    texts = finished_texts((record["text"], record["truncated"]) for record in records)
    if not form.ends or other_format(texts, form) is None:
        return None
    return never_closed(texts, form)


def _below_threshold(records: Sequence[Record], judge: str | None) -> str:
    """Return what to change where all positive rewards of `judge` are below the threshold; else ""."""
    values = [row[judge] for record in records if judge in (row := record.get("rewards", {}))]
    if not values or max(values) <= 0:
        return ""
    given = f"{judge} gives {min(values):g} to {max(values):g}"
    return f"{given}, and only 1 is right: --correct_threshold sets another value."


def _other_judges(records: Sequence[Record], judge: str | None) -> str:
    """Return which function decides right or wrong, in a run of several; else ""."""
    others = any(record.get("rewards", {}).keys() - {judge, "length"} for record in records)
    if judge is None or not others:
        return ""
    return f" {judge} decides what is right; --correct_reward names another function."


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
        + f" is right: the verifier accepts none. Compare the answer below with its reference "
        f"({record.get('reference')!r}): the problems may be too hard, the answer in another form (--prompt_template "
        "can request \\boxed{}), or --reference_column the wrong one."
    ),
    RIGHT: lambda share, _, __: (
        f"{share} are right with the same reward: nothing distinguishes them. Use harder problems, or a length "
        "reward (--length_reward tlmre)."
    ),
    "equal": lambda share, _, __: (
        "Every problem has only right or only wrong responses. More responses per problem (--num_generations) or "
        "problems of middle difficulty give signal."
    ),
}


def show_response(record: Record, *, begin: int = 200, end: int = 300) -> str:
    """Return problem, response and reference of one record in a few lines, long texts shortened."""
    problem, text = record["prompt"].strip(), record["text"]
    if len(text) > begin + end:
        text = f"{text[:begin]} … [{len(text) - begin - end} characters] … {text[-end:]}"
    prompt = problem if len(problem) <= end else f"… {problem[-end:]}"
    return (
        f"prompt: {prompt!r}\nresponse ({record['tokens']['completion']} tokens, {state_of(record)}): {text!r}\n"
        f"reference: {record.get('reference')!r}"
    )
