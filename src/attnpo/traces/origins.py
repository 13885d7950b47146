"""Convert rows of other tools to traces: lm-eval samples, lighteval details, inspect logs, Every Eval Ever, messages.

A converter takes one row of its tool and yields a trace per response in it: {"id", "problem", "response", "reference",
"model", "correct"}, the last three if the row has them. Thinking that a tool stores separately from the answer is put
before it, between <think> and </think>. Field names are those of the tools' releases named in docs/data.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attnpo.data.columns import REFERENCE_COLUMNS, REPLIES, cell, find_problem_column, read_problem
from attnpo.data.jsonl import type_name
from attnpo.data.messages import is_conversation, read_messages, split_conversation
from attnpo.data.references import read_reference
from attnpo.errors import InputError
from attnpo.rewards.accuracy import completion_text
from attnpo.steps.formats import THINK, ThinkingFormat

Row = dict[str, Any]
Converter = Callable[[Row, str, ThinkingFormat], Iterator[Row]]
"""(row, its name in errors, marks for thinking that the row stores separately) -> traces."""

AUTO, OWN = "auto", "attnpo"


def origin_of(row: Mapping[str, Any]) -> str:
    """Return which tool wrote a row, by its fields; `OWN` for a row that is a trace, and for one of no known tool."""
    if isinstance(row.get("response"), str):
        return OWN
    if "resps" in row and "doc" in row:
        return "lm-eval"
    if ("doc" in row and "model_response" in row) or ("predictions" in row and "full_prompt" in row):
        return "lighteval"
    if "interaction_type" in row and "evaluation_id" in row:
        return "every-eval-ever"
    if "epoch" in row and "output" in row and "input" in row:
        return "inspect"
    if any(is_conversation(row.get(name)) for name in (*CONVERSATIONS, "completion")):
        return "messages"
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return "messages"
    return OWN


def lm_eval(row: Row, where: str, marks: ThinkingFormat = THINK) -> Iterator[Row]:
    """Convert a row of lm-eval's ``samples_*.jsonl`` (``--log_samples``).

    The problem is the last user message if the model was called through a chat API, otherwise the question of the
    document, otherwise the prompt that was sent (with few-shot examples and instructions).
    """
    asked = cell(row, "arguments.gen_args_0.arg_0")
    if asked is None:
        asked = cell(row, "arguments.0.0")
    messages = _as_json(asked)
    doc = _object(row, "doc", where)
    if is_conversation(messages):
        problem = split_conversation(read_messages(messages, where), where)[1]
    else:
        problem = _question(doc, where) or (asked if isinstance(asked, str) else None)
    responses = row.get("resps")
    while isinstance(responses, list) and len(responses) == 1 and isinstance(responses[0], list):
        responses = responses[0]  # a list of repeats in a list of requests
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        raise InputError(
            f"{where}: field 'resps' has no generated texts (of a task that compares likelihoods?), expected those of "
            "a task with generate_until"
        )
    scores = [row[name] for name in row.get("metrics") or () if isinstance(row.get(name), int | float)]
    common = {**_reference(row.get("target")), **_correct(scores[0] if scores else None)}
    yield from _several(row.get("doc_id"), problem, responses, common, where)


def lighteval(row: Row, where: str, marks: ThinkingFormat = THINK) -> Iterator[Row]:
    """Convert a row of lighteval's ``details_*.parquet``: doc, model_response, metric; before 0.9 full_prompt,
    predictions, gold."""
    metric = row.get("metric") or row.get("metrics") or {}
    name, score = next(iter(metric.items())) if len(metric) == 1 else ("", None)
    correct, of_each = _correct(score), is_share(name)
    if "model_response" not in row:
        texts = _as_json(row["predictions"])
        common = {**_reference(_as_json(row.get("gold"))), **correct}
        yield from _several(None, row.get("example") or row["full_prompt"], texts, common, where, of_each=of_each)
        return
    doc, answer = _object(row, "doc", where), _object(row, "model_response", where)
    golds, choices = doc.get("gold_index"), doc.get("choices") or []
    indices = golds if isinstance(golds, list) else [golds]
    found = [choices[index] for index in indices if isinstance(index, int) and 0 <= index < len(choices)]
    texts = _with_reasoning(answer.get("text") or [], answer.get("reasonings"), marks)
    common = {**_reference(found), **correct}
    yield from _several(doc.get("id"), doc.get("query"), texts, common, where, of_each=of_each)


_OF_A_GROUP = re.compile(r"pass@(?!(?:k:k=)?1(?!\d))|maj@|cons@|best@", re.IGNORECASE)


def is_share(metric: str) -> bool:
    """Return whether a score of several responses is the share of right ones, according to the metric's name. The score
    of a group (at least one of them is right, or most) does not apply to each.

    >>> [is_share(name) for name in ("extractive_match", "math_pass@1:4_samples", "pass@k:k=1", "pass@16", "maj@4")]
    [True, True, True, False, False]
    """
    return _OF_A_GROUP.search(metric) is None


def every_eval_ever(row: Row, where: str, marks: ThinkingFormat = THINK) -> Iterator[Row]:
    """Convert an instance record of Every Eval Ever (``*_samples.jsonl``, schema 0.2 and 0.3)."""
    asked, result = _object(row, "input", where), row.get("evaluation") or {}
    common = {**_reference(asked.get("reference")), **_correct(result.get("is_correct"))}
    if isinstance(row.get("model_id"), str):
        common["model"] = row["model_id"]
    if is_conversation(row.get("messages")):
        messages = [
            {**turn, "reasoning_content": turn["reasoning_trace"]} if turn.get("reasoning_trace") else turn
            for turn in row["messages"]
        ]
        before, reply = _reply(messages, where, marks)
        problem = split_conversation(read_messages(before, where), where)[1]
        yield from _several(row.get("sample_id"), problem, [reply], common, where)
        return
    output = _object(row, "output", where)
    texts = output.get("raw")
    texts = _with_reasoning([texts] if isinstance(texts, str) else texts or [], output.get("reasoning_trace"), marks)
    yield from _several(row.get("sample_id"), asked.get("raw"), texts, common, where)


def inspect(row: Row, where: str, marks: ThinkingFormat = THINK) -> Iterator[Row]:
    """Convert a sample of an inspect log (``.eval``, or ``.json``)."""
    asked, output = row.get("input"), _object(row, "output", where)
    if is_conversation(asked):
        asked = split_conversation(read_messages(asked, where), where)[1]
    texts = [
        completion_text([choice["message"]], marks) for choice in output.get("choices") or [] if choice.get("message")
    ]
    scores = [score.get("value") for score in (row.get("scores") or {}).values() if isinstance(score, Mapping)]
    common = {**_reference(row.get("target")), **_correct(scores[0] if len(scores) == 1 else None)}
    if output.get("model"):
        common["model"] = output["model"]
    epoch = row.get("epoch")
    identity = f"{row.get('id')}-{epoch}" if isinstance(epoch, int) and epoch > 1 else row.get("id")
    yield from _several(identity, asked, texts or [output.get("completion") or ""], common, where)


CONVERSATIONS = ("messages", "conversations", "conversation", "prompt")


def conversation(row: Row, where: str, marks: ThinkingFormat = THINK) -> Iterator[Row]:
    """Convert a row with messages in OpenAI's or ShareGPT's form; the last reply is the response. Other fields stay.

    Also converts TRL's prompt and completion. The problem is the last user message before the reply.
    """
    name = next((name for name in CONVERSATIONS if is_conversation(row.get(name))), None)
    messages = list(row[name]) if name is not None else []
    completion = row.get("completion")
    if isinstance(completion, str):
        messages.append({"role": "assistant", "content": completion})
    elif completion is not None:
        messages += completion
    before, reply = _reply(messages, where, marks)
    if name is None and isinstance(row.get("prompt"), str):
        problem = row["prompt"]
    else:
        problem = split_conversation(read_messages(before, where), where)[1]
    kept = {key: value for key, value in row.items() if key not in (*CONVERSATIONS, "completion")}
    if "reference" not in kept:
        answers = (cell(row, column) for column in REFERENCE_COLUMNS if column not in REPLIES)
        kept |= next((found for found in map(_reference, answers) if found), {})
    yield {**kept, "problem": problem, "response": reply}


CONVERTERS: dict[str, Converter] = {
    "messages": conversation,
    "lm-eval": lm_eval,
    "lighteval": lighteval,
    "inspect": inspect,
    "every-eval-ever": every_eval_ever,
}


def _several(
    identity: Any, problem: Any, texts: Any, common: Row, where: str, *, of_each: bool = False
) -> Iterator[Row]:
    """Yield one trace per response. of_each: "correct" in `common` applies to each of several responses; otherwise it
    is not known which of them was graded, and "correct" is kept for a single response only."""
    if not isinstance(problem, str) or not problem.strip():
        raise InputError(f"{where}: found no question of the row ({type_name(problem)}), expected a text")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: found no responses of the row ({type_name(texts)}), expected a list of texts")
    if len(texts) > 1 and not of_each:
        common = {name: value for name, value in common.items() if name != "correct"}
    for number, text in enumerate(texts, start=1):
        named = {} if identity is None else {"id": str(identity) if len(texts) == 1 else f"{identity}-{number}"}
        yield {**named, "problem": problem, "response": text, **common}


def _with_reasoning(texts: Any, reasonings: Any, marks: ThinkingFormat) -> Any:
    """Return each response with its thinking before it, if that is stored separately and not yet part of the text."""
    if not isinstance(texts, list):
        return texts
    traces = list(reasonings) if isinstance(reasonings, list) else [reasonings] * len(texts)
    traces += [None] * (len(texts) - len(traces))
    return [
        completion_text([{"role": "assistant", "content": text, "reasoning_content": trace}], marks)
        if isinstance(trace, str) and trace.strip() and isinstance(text, str) and trace not in text
        else text
        for text, trace in zip(texts, traces, strict=False)
    ]


def _reply(
    messages: Sequence[Mapping[str, Any]], where: str, marks: ThinkingFormat
) -> tuple[list[Mapping[str, Any]], str]:
    """Return the messages before the last reply of the assistant, and its text with thinking."""
    roles = [str(message.get("role", message.get("from"))).lower() for message in messages]
    last = max((i for i, role in enumerate(roles) if role in ("assistant", "gpt", "model")), default=None)
    if last is None:
        found = ", ".join(roles) or "nobody"
        raise InputError(f"{where}: found messages of {found}, expected a reply of the assistant")
    message = messages[last]
    reply = {**message, "role": "assistant"} | ({} if "content" in message else {"content": message.get("value")})
    return list(messages[:last]), completion_text([reply], marks)


def _question(doc: Row, where: str) -> str | None:
    """Return the question of a document, by the names that data sets use for it; None if it has none of these."""
    try:
        return read_problem(doc, find_problem_column([doc], where, None, "--from"), where)[1]
    except InputError:
        return None


def _reference(value: Any) -> Row:
    """Return the right answer as a field of the trace; no field if there is none."""
    found = read_reference(value)
    return {} if found is None else {"reference": found.text}


def _correct(score: Any) -> Row:
    """Return whether a tool graded the response as right, as a field: 1, "C" (inspect) or true; no field for shares."""
    if isinstance(score, str):
        return {"correct": score == "C"} if score in ("C", "I") else {}
    return {"correct": bool(score)} if isinstance(score, int | float) and score in (0, 1) else {}


def _object(row: Row, name: str, where: str) -> Row:
    value = _as_json(row.get(name))
    if not isinstance(value, dict):
        raise InputError(f"{where}: field {name!r} is {type_name(value)}, expected an object")
    return value


def _as_json(value: Any) -> Any:
    """Parse a text of JSON; return any other value unchanged."""
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
