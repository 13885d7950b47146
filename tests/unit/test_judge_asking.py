"""Faults of judges: those that are retried, those that are counted, and those that stop the run."""

from __future__ import annotations

import json
import time

import pytest

from attnpo.errors import RunError
from attnpo.judges import client as judge_client
from attnpo.judges.config import Judge
from attnpo.labels.by_judges import label_file


def row(name: str, *texts: str) -> dict:
    thinking, steps = "", []
    for text in texts:
        steps.append({"start": len(thinking), "end": len(thinking) + len(text)})
        thinking += text
    return {"id": name, "problem": f"problem {name}", "response": f"{thinking}</think>42", "steps": steps}


ROW = row("a", "NEEDED sum. ", "Again. ")


@pytest.fixture
def label(judge_stub, tmp_path):
    """label(rows, …): the report and the rows written, by judges m (and more, by model name) at the stub."""

    def run(rows, *models, options=None, **settings):
        judges = [Judge(model, judge_stub.stub.url, model, **(options or {})) for model in models or ("m",)]
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        target.unlink(missing_ok=True)
        settings = {"retries": 2, "timeout": 20.0, **settings}
        report = label_file(source, target, judges=judges, approve=lambda estimate: True, **settings)
        return report, [json.loads(line) for line in target.read_text().splitlines()]

    return run


def labels(row: dict) -> list:
    return [step["essential"] for step in row["steps"]]


# What gets better by asking again


@pytest.mark.parametrize("status", [429, 500])
def test_a_busy_endpoint_is_asked_again(judge_stub, label, status) -> None:
    judge_stub.stub.reply = lambda seen: judge_stub.fails(status) if seen.number < 2 else judge_stub.by_text(seen)
    report, (out,) = label([ROW])
    assert labels(out) == [True, False]
    assert len(judge_stub.stub.seen) == 3
    tally = report.tallies["m"]
    assert (tally.votes, tally.invalid, tally.failures) == (1, 0, {})


def test_retry_after_is_waited_for(judge_stub, label) -> None:
    waits = {"retry-after-ms": "", "retry-after": "0.3"}
    judge_stub.stub.reply = lambda seen: (
        judge_stub.fails(429, **waits) if seen.number == 0 else judge_stub.by_text(seen)
    )
    start = time.monotonic()
    assert labels(label([ROW])[1][0]) == [True, False]
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("behaviour", ["close", "hang"])
def test_a_lost_connection_is_asked_again(judge_stub, label, behaviour) -> None:
    lost = {"close": lambda: judge_stub.Reply(None), "hang": judge_stub.stub.hangs}[behaviour]
    judge_stub.stub.reply = lambda seen: lost() if seen.number == 0 else judge_stub.by_text(seen)
    report, (out,) = label([ROW], timeout=0.3 if behaviour == "hang" else 20.0)
    assert labels(out) == [True, False]
    assert report.tallies["m"].failures == {}


def test_an_invalid_answer_is_asked_again_with_its_fault(judge_stub, label) -> None:
    answers = ["I think all are essential.", '{"1": "essential"}', '{"1": "essential", "2": "redundant"}']
    judge_stub.stub.reply = lambda seen: judge_stub.says(answers[seen.number])
    report, (out,) = label([ROW])
    assert labels(out) == [True, False]
    first, second, third = (seen.prompt for seen in judge_stub.stub.seen)
    assert second.startswith(first)
    assert "was not valid: it is not JSON" in second
    assert third.startswith(first)
    assert 'was not valid: it has no entry for "2"' in third
    tally = report.tallies["m"]
    assert (tally.votes, tally.invalid, tally.tokens_in, tally.tokens_out) == (1, 2, 300, 30)


# What does not


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda stub: stub.says("garbage"), "no valid answer"),
        (lambda stub: stub.says('{"1": "essential", "2": "redu'), "no valid answer"),
        (lambda stub: stub.says('{"1": "essential", "3": "redundant"}'), "no valid answer"),
        (lambda stub: stub.says('{"1": "essential", "2": "useless"}'), "no valid answer"),
        (lambda stub: stub.says(None), "no valid answer"),
        (lambda stub: stub.Reply(b"<html>proxy</html>", headers={"content-type": "text/html"}), "no valid answer"),
        (lambda stub: stub.Reply(b'{"choices": [', headers={"content-type": "application/json"}), "no valid answer"),
        (lambda stub: stub.fails(500), "HTTP 500"),
        (lambda stub: stub.fails(400, "too long"), "HTTP 400"),
        (lambda stub: stub.Reply(b"\xff\xfe", 418), "HTTP 418"),
    ],
)
def test_a_row_without_a_vote_is_counted_and_not_guessed(judge_stub, label, reply, reason) -> None:
    """Judge `bad` fails on the trace of the second row; the other judge and the other rows are not touched."""
    stub = judge_stub

    def respond(seen):
        return reply(stub) if seen.model == "bad" and "problem b" in seen.prompt else stub.by_text(seen)

    stub.stub.reply = respond
    rows = [ROW, row("b", "One. ", "NEEDED two."), row("c", "NEEDED one.", "Two NEEDED.")]
    report, out = label(rows, "good", "bad", retries=1)
    assert [labels(row) for row in out] == [[True, False], [None, None], [True, True]]
    assert [step["votes"] for step in out[1]["steps"]] == [{"good": False}, {"good": True}]
    assert [step["votes"] for step in out[0]["steps"]] == [{"good": True, "bad": True}, {"good": False, "bad": False}]
    assert report.tallies["bad"].failures == {reason: 1}
    assert report.tallies["bad"].votes == 2
    assert report.tallies["good"].failures == {}
    assert report.traces == {"labelled": 2, "no step with a consensus": 1}
    assert f"1 questions without a vote (1 {reason}" in "\n".join(report.lines())
    # with a quorum of one the other judge's votes are enough, and both answers of each judge come from the cache
    asked = len(stub.stub.seen)
    report, out = label(rows, "good", "bad", retries=0, quorum=1)
    assert labels(out[1]) == [False, True]
    assert len(stub.stub.seen) == asked + 1  # invalid answers are not in the cache
    assert (report.tallies["good"].cached, report.tallies["bad"].cached) == (3, 2)


def test_no_answer_in_time(judge_stub, label, monkeypatch) -> None:
    judge_stub.stub.reply = lambda seen: judge_stub.stub.hangs()
    report, (out,) = label([ROW], timeout=0.2, retries=0)
    assert labels(out) == [None, None]
    assert report.tallies["m"].failures == {"no answer within 0.2 s": 1}


def test_connection_refused(judge_stub, label) -> None:
    judge_stub.stub.close()
    report, (out,) = label([ROW], retries=0)
    assert labels(out) == [None, None]
    assert report.tallies["m"].failures == {"no connection": 1}


def test_slow_response_times_out(judge_stub, label, monkeypatch) -> None:
    """Blank lines that keep the connection alive restart the client's time-out again and again."""
    monkeypatch.setattr(judge_client, "LONGEST_PAUSE", 0.1)
    stub = judge_stub.stub
    handler = stub._server.RequestHandlerClass

    def trickle(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000000")
        self.end_headers()
        while not stub.over.wait(0.05):
            try:
                self.wfile.write(b"\n")
            except OSError:
                return

    monkeypatch.setattr(handler, "do_POST", trickle)
    report, _ = label([ROW], timeout=0.3, retries=0)
    assert report.tallies["m"].failures == {"no answer within 0.3 s": 1}


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_permanent_errors_stop_the_run(judge_stub, label, tmp_path, status) -> None:
    stub = judge_stub
    rows = [row(name, "NEEDED. ", "x. ") for name in "abcdef"]

    def respond(seen):
        return stub.fails(status, "you may not") if "problem d" in seen.prompt else stub.by_text(seen)

    stub.stub.reply = respond
    with pytest.raises(RunError, match=rf"^judge m \(m at http.*\): Error code: {status} - you may not. Stopped;"):
        label(rows, concurrency=1)
    assert len(stub.stub.seen) == 4  # not retried, nothing after it
    assert not (tmp_path / "out.jsonl").exists()
    stub.stub.reply = stub.by_text
    report, _ = label(rows, concurrency=1)
    assert len(stub.stub.seen) == 4 + 3  # nothing was lost
    assert (report.tallies["m"].cached, report.tallies["m"].votes) == (3, 3)


def test_a_judge_that_never_votes_is_given_up(judge_stub, label, monkeypatch) -> None:
    monkeypatch.setattr(judge_client, "GIVE_UP_AFTER", 3)
    stub = judge_stub
    stub.stub.reply = lambda seen: (
        stub.by_text(seen) if "problem c" in seen.prompt else stub.fails(400, "no such field")
    )
    with pytest.raises(RunError, match=r"judge m gave no vote on 3 traces in a row .*no such field"):
        label([row(name, "NEEDED. ", "x. ") for name in "abcdefghi"], concurrency=1)
    assert len(stub.stub.seen) == 6  # two that failed, one good, three that failed


# What is sent


def test_request_contents(judge_stub, label, monkeypatch) -> None:
    """Only to OpenAI itself go the variables that its client reads from the environment."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("OTHER_KEY", "sk-other\n")
    options = {"max_tokens": 50, "extra_body": {"seed": 3}}
    label([ROW], options=options)
    label([ROW], "n", options={"api_key_env": "OTHER_KEY", "temperature": None})
    without, with_key = judge_stub.stub.seen
    assert without.path == "/v1/chat/completions"
    assert {k: v for k, v in without.body.items() if k != "messages"} == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 50,
        "seed": 3,
    }
    assert "authorization" not in without.headers
    assert "sk-secret" not in str(without.headers)
    assert with_key.headers["authorization"] == "Bearer sk-other"
    assert "sk-secret" not in str(with_key.headers)
    assert set(with_key.body) == {"model", "messages"}


def test_equal_traces_are_asked_once_and_judges_at_the_same_time(judge_stub, label) -> None:
    report, out = label([ROW, {**ROW, "id": "again"}], "m", "n")
    assert sorted(seen.model for seen in judge_stub.stub.seen) == ["m", "n"]
    assert labels(out[0]) == labels(out[1]) == [True, False]
    assert report.traces == {"labelled": 2}


def test_requests_run_at_the_same_time_up_to_the_limit(judge_stub, label) -> None:
    """The stub answers nothing until three requests are there: one after the other they would never come."""
    import threading

    barrier = threading.Barrier(3, timeout=20)
    running, most, lock = 0, 0, threading.Lock()

    def respond(seen):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait()
        with lock:
            running -= 1
        return judge_stub.by_text(seen)

    judge_stub.stub.reply = respond
    report, _ = label([row(str(n), "NEEDED. ", "x. ") for n in range(6)], concurrency=3)
    assert report.tallies["m"].votes == 6
    assert most == 3


def test_tokens_are_estimated_where_the_endpoint_counts_none(judge_stub, label) -> None:
    text = '{"1": "essential", "2": "redundant"}'
    judge_stub.stub.reply = lambda seen: judge_stub.says(text, tokens=None)
    report, _ = label([ROW], options={"price_in": 1.0, "price_out": 4.0})
    tally = report.tallies["m"]
    assert tally.tokens_in == -(-len(judge_stub.stub.seen[0].prompt) // 4)
    assert tally.tokens_out == 9  # 36 characters
    (line,) = [line for line in report.lines() if line.startswith("judge m")]
    assert f"out (partly estimated), cost {(tally.tokens_in + 4 * 9) / 1e6:.4f}" in line
