"""Valid answers of judges on disk, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from types import TracebackType

from attnpo.errors import InputError, RunError
from attnpo.judges.config import Judge
from attnpo.judges.questions import Votes

BUSY_TIMEOUT = 60.0  # seconds to wait for another run that writes to the same file


def answer_key(judge: Judge, prompt: str) -> str:
    """What an answer depends on, hashed: endpoint, model, the whole prompt, the sampling settings. Not the API key."""
    asked = {"base_url": judge.base_url, "model": judge.model, "prompt": prompt, "sampling": judge.sampling}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """An SQLite file of votes by `answer_key`. Every answer is on disk when `put` returns. A context manager.

    It holds hashes and votes only: no text of a trace, no address, no key.

    Raises:
        InputError: the file cannot be opened or is something else.
        RunError: reading or writing failed later on (disk full, …).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            # No transaction spans two statements: an answer is kept at once, whatever happens to the run.
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        except sqlite3.Error as error:
            raise InputError(f"--cache {path}: cannot be opened ({error})") from None
        try:
            self._connection.execute("CREATE TABLE IF NOT EXISTS judge_answers (key TEXT PRIMARY KEY, votes TEXT)")
        except sqlite3.Error as error:
            self._connection.close()
            raise InputError(f"--cache {path}: cannot be used for judges' answers ({error})") from None

    def get(self, key: str, steps: int) -> Votes | None:
        """The votes on `steps` steps, None where there are none (or what is there cannot be an answer)."""
        try:
            row = self._connection.execute("SELECT votes FROM judge_answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: reading failed ({error})") from error
        if row is None or not isinstance(row[0], str) or len(row[0]) != steps or set(row[0]) - {"E", "R"}:
            return None
        return tuple(letter == "E" for letter in row[0])

    def put(self, key: str, votes: Votes) -> None:
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
