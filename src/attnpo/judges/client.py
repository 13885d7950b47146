"""Questions to OpenAI-compatible chat endpoints: concurrent, repeated if that can help, with every outcome counted.

Valid answers are stored on disk (`AnswerCache`), so that none is paid for twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attnpo.errors import InputError, RunError
from attnpo.judges.config import Judge, parse_judge, scrubbed
from attnpo.judges.questions import REPEATED, InvalidAnswer, Votes, equality_prompt, parse_equality, parse_votes
from attnpo.rewards.verdict import Verdict

BUSY_TIMEOUT = 60.0  # seconds to wait for another run that writes to the same file


def answer_key(judge: Judge, prompt: str) -> str:
    """Return a hash of all that an answer depends on: endpoint, model, prompt, sampling settings; not the API key."""
    asked = {"base_url": judge.base_url, "model": judge.model, "prompt": prompt, "sampling": judge.sampling}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """An SQLite file of votes by `answer_key`. Every answer is on disk when `put` returns. A context manager.

    It contains hashes and votes only: no text of a trace, no address, no key.

    Raises:
        InputError: the file cannot be opened or is not an SQLite file.
        RunError: reading or writing failed later (disk full, …).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            # No transaction spans two statements: an answer is stored at once, whatever happens to the run.
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        except sqlite3.Error as error:
            raise InputError(f"--cache {path}: cannot be opened ({error})") from None
        try:
            self._connection.execute("CREATE TABLE IF NOT EXISTS judge_answers (key TEXT PRIMARY KEY, votes TEXT)")
        except sqlite3.Error as error:
            self._connection.close()
            raise InputError(f"--cache {path}: cannot be used for judges' answers ({error})") from None

    def get(self, key: str, steps: int) -> Votes | None:
        """Return the votes on `steps` steps; None if there are none, or the stored text cannot be an answer."""
        try:
            row = self._connection.execute("SELECT votes FROM judge_answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: reading failed ({error})") from error
        if row is None or not isinstance(row[0], str) or len(row[0]) != steps or set(row[0]) - {"E", "R"}:
            return None
        return tuple(letter == "E" for letter in row[0])

    def put(self, key: str, votes: Votes) -> None:
        """Store votes."""
        letters = "".join("E" if vote else "R" for vote in votes)
        try:
            self._connection.execute("INSERT OR REPLACE INTO judge_answers VALUES (?, ?)", (key, letters))
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: writing failed ({error})") from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if TYPE_CHECKING:
    from openai import AsyncOpenAI


CHARACTERS_PER_TOKEN = 4  # a rough rule for English; formulas and code have fewer


def require_client() -> None:
    """Raise InputError if the client package is not installed."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise InputError("--by judges needs the package openai: pip install 'attnpo[judges]'") from None


def make_client(judge: Judge, key: str | None, *, retries: int, timeout: float) -> AsyncOpenAI:
    """Return a client that retries time-outs, broken connections, HTTP 408, 409, 429 and 5xx, with exponential back-off
    or after the time in Retry-After (at most two minutes)."""
    from openai import AsyncOpenAI, Omit

    # The client takes missing values from OPENAI_* variables. Only OpenAI itself may get those.
    headers: dict[str, Any] = {} if judge.is_openai else {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
    return AsyncOpenAI(
        api_key=key or "",
        admin_api_key="",
        base_url=judge.base_url,
        timeout=timeout,
        max_retries=retries,
        default_headers=headers,
    )


async def request_answer(client: AsyncOpenAI, judge: Judge, prompt: str) -> tuple[str | None, tuple[int, int] | None]:
    """Return the text of the answer and its (prompt, completion) tokens; None for values missing in the reply.

    The reply is parsed here because the client does not check that it is a completion.

    Raises:
        openai.APIError: after the client's own retries.
    """
    from openai import Omit

    response = await client.chat.completions.with_raw_response.create(
        model=judge.model,
        messages=[{"role": "user", "content": prompt}],
        extra_body=judge.sampling,
        extra_headers={} if client.api_key else {"Authorization": Omit()},
    )
    body = _json(response.http_response.text)
    text = _at(body, "choices", 0, "message", "content")
    tokens_in, tokens_out = _at(body, "usage", "prompt_tokens"), _at(body, "usage", "completion_tokens")
    counted = all(type(count) is int and count >= 0 for count in (tokens_in, tokens_out))
    return text if isinstance(text, str) else None, (tokens_in, tokens_out) if counted else None


def estimated_tokens(characters: int) -> int:
    """Return a quarter of the characters, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a proxy's HTML page, say
        return None


def _at(value: Any, *path: str | int) -> Any:
    """Return the value at a path in parsed JSON; None if there is no such path."""
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) and len(value) > part else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


# Asking again does not help: wrong key, no money, no permission, wrong address or model.
HOPELESS = frozenset({401, 402, 403, 404})
GIVE_UP_AFTER = 25  # traces in a row without a vote: the endpoint is down, or the model cannot do it
LONGEST_PAUSE = 120.0  # seconds between two attempts; an endpoint that requests a longer pause is not asked again

Store = Callable[[Judge, "Question", Votes | None], None]


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about `steps` steps. `key`: of its answer in the cache. `parse`: reads an answer that is not votes on
    steps, or raises InvalidAnswer."""

    key: str
    prompt: str
    steps: int
    parse: Callable[[str], Votes] | None = None

    def read(self, answer: str) -> Votes:
        return parse_votes(answer, self.steps) if self.parse is None else self.parse(answer)


@dataclass
class Tally:
    """Counts of the outcomes of the questions to one judge."""

    votes: int = 0  # valid answers received
    cached: int = 0  # valid answers found on disk
    invalid: int = 0  # invalid answers, which were paid for too
    failures: Counter[str] = field(default_factory=Counter)  # questions that got no vote, by reason
    last_error: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: bool = False  # some answers came without token counts
    failed_in_a_row: int = 0


@dataclass(frozen=True)
class Patience:
    """retries: after the first attempt, for failed requests and, counted separately, for invalid answers.
    concurrency: requests at a time, per judge. timeout: seconds of one attempt."""

    retries: int = 3
    concurrency: int = 8
    timeout: float = 120.0


def ask_judges(
    questions: Sequence[tuple[Judge, Sequence[Question]]],
    tallies: Mapping[str, Tally],
    patience: Patience,
    store: Store,
) -> None:
    """Ask every judge its questions; `store` is called with each valid answer as it arrives, or None without one.
    `tallies` (by name) are updated.

    Raises:
        InputError: a judge's key or the client package is missing.
        RunError: an endpoint refuses permanently, or `GIVE_UP_AFTER` questions in a row got no vote. All other requests
            are stopped; stored answers stay.
    """
    require_client()
    keys = {judge.name: judge.api_key() for judge, _ in questions}
    asyncio.run(_ask_all(questions, keys, tallies, patience, store))


async def _ask_all(
    questions: Sequence[tuple[Judge, Sequence[Question]]],
    keys: Mapping[str, str | None],
    tallies: Mapping[str, Tally],
    patience: Patience,
    store: Store,
) -> None:
    clients, tasks = [], []
    for judge, todo in questions:
        client = make_client(judge, keys[judge.name], retries=patience.retries, timeout=patience.timeout)
        clients.append(client)
        pending, one = iter(todo), _Asker(judge, client, keys[judge.name], tallies[judge.name], patience, store)
        tasks += [asyncio.create_task(one.work(pending)) for _ in range(min(patience.concurrency, len(todo)))]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:  # after an error or an interrupt, send no more requests
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients:
            await client.close()


class OneJudge(ABC):
    """Yes-or-no questions to one judge; valid answers are stored, so that none is paid for twice.

    A subclass defines `parse`, which reads an answer as one vote or raises InvalidAnswer.

    Args:
        judge: `URL#MODEL`. api_key_env: the environment variable with its key.
        cache: an SQLite file of valid answers; None stores none.

    Attributes:
        tally: counts of the outcomes.

    Raises:
        InputError: a malformed judge, a missing key or package, a cache that cannot be opened.
    """

    @staticmethod
    @abstractmethod
    def parse(text: str) -> Votes: ...

    def __init__(
        self,
        judge: str,
        *,
        api_key_env: str | None = None,
        cache: str | Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.judge: Judge = parse_judge(judge, api_key_env)
        self.cache, self.patience, self.tally = cache, patience or Patience(), Tally()
        require_client()
        self.judge.api_key()
        with self._answers():
            pass  # a bad cache raises now rather than at the first question

    def ask(self, prompts: Sequence[str]) -> list[bool | None]:
        """Return the votes in order; None without a valid answer. Equal prompts are asked once.

        Raises:
            RunError: the endpoint refuses permanently, or `GIVE_UP_AFTER` questions in a row got no vote.
        """
        keys = [answer_key(self.judge, prompt) for prompt in prompts]
        found: dict[str, bool] = {}
        with self._answers() as answers:
            questions: dict[str, Question] = {}
            for key, prompt in zip(keys, prompts, strict=True):
                known = None if answers is None else answers.get(key, 1)
                if known is None:
                    questions[key] = Question(key, prompt, 1, self.parse)
                else:
                    self.tally.cached += 1
                    found[key] = known[0]

            def store(judge: Judge, question: Question, votes: Votes | None) -> None:
                if votes is not None:
                    found[question.key] = votes[0]
                    if answers is not None:
                        answers.put(question.key, votes)

            if questions:
                todo = [(self.judge, list(questions.values()))]
                ask_judges(todo, {self.judge.name: self.tally}, self.patience, store)
        return [found.get(key) for key in keys]

    def _answers(self) -> AnswerCache | nullcontext[None]:
        return nullcontext() if self.cache is None else AnswerCache(self.cache)


class AnswerJudge(OneJudge):
    """Asks whether two answers agree where the rules could not tell. Off by default.

        VerifierPool(judge=AnswerJudge("http://localhost:8000/v1#my-model", cache="answers.sqlite"))

    Its verdicts are separate ones (`judged_right`, `judged_wrong`), so that records and metrics tell them apart.
    """

    parse = staticmethod(parse_equality)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts on (answer, reference) pairs, in order; unverifiable where there is none. Raises as `ask` does."""
        found = {True: Verdict.JUDGED_RIGHT, False: Verdict.JUDGED_WRONG, None: Verdict.UNVERIFIABLE}
        return [found[same] for same in self.ask([equality_prompt(answer, reference) for answer, reference in pairs])]


@dataclass
class _Asker:
    judge: Judge
    client: AsyncOpenAI
    key: str | None = field(repr=False)
    tally: Tally
    patience: Patience
    store: Store

    async def work(self, pending: Iterator[Question]) -> None:
        """Ask questions that no other worker of the same judge has taken, until there are none."""
        for question in pending:
            votes = await self._votes(question)
            self.store(self.judge, question, votes)
            if votes is not None:
                self.tally.votes += 1
                self.tally.failed_in_a_row = 0
                continue
            self.tally.failed_in_a_row += 1
            if self.tally.failed_in_a_row >= GIVE_UP_AFTER:
                raise RunError(
                    f"judge {self.judge.name} gave no vote on {GIVE_UP_AFTER} traces in a row "
                    f"(the last: {self.tally.last_error})"
                )

    async def _votes(self, question: Question) -> Votes | None:
        """Return the votes; None after a failure, which is counted by reason. Invalid answers are requested again."""
        import openai

        prompt = question.prompt
        # The client's time-out restarts with every byte; a very slow stream of bytes must end too.
        limit = (self.patience.retries + 1) * (self.patience.timeout + LONGEST_PAUSE)
        try:
            for _ in range(self.patience.retries + 1):
                try:
                    async with asyncio.timeout(limit):
                        return question.read(await self._answer(prompt))
                except InvalidAnswer as fault:
                    self.tally.invalid += 1
                    self.tally.last_error = f"not a valid answer: {fault}"
                    prompt = question.prompt + REPEATED.format(fault=fault)
            reason = "no valid answer"
        except openai.APIStatusError as error:
            reason = f"HTTP {error.status_code}"
            message = " ".join(scrubbed(error.message, [self.key]).split())[:500]
            self.tally.last_error = message
            if error.status_code in HOPELESS:
                raise RunError(
                    f"judge {self.judge.name} ({self.judge.model} at {self.judge.base_url}): {message}"
                ) from None
        except (openai.APITimeoutError, TimeoutError):
            reason = f"no answer within {self.patience.timeout:g} s"
            self.tally.last_error = reason
        except openai.APIConnectionError as error:
            reason = "no connection"
            self.tally.last_error = scrubbed(f"no connection ({error.__cause__ or error})", [self.key])
        self.tally.failures[reason] += 1
        return None

    async def _answer(self, prompt: str) -> str:
        """Return the text of one answer and count its tokens."""
        text, tokens = await request_answer(self.client, self.judge, prompt)
        if tokens is None:
            self.tally.estimated = True
            tokens = estimated_tokens(len(prompt)), estimated_tokens(len(text or ""))
        self.tally.tokens_in += tokens[0]
        self.tally.tokens_out += tokens[1]
        if text is None or not text.strip():
            raise InvalidAnswer("it was empty")
        return scrubbed(text, [self.key])  # before a part of it is quoted as a fault
