"""The cache of judges' answers: its keys and its persistence."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from attnpo.judges.client import AnswerCache, answer_key
from attnpo.judges.config import Judge

JUDGE = Judge("a", "http://host/v1", "m")


def test_inputs_of_a_cache_key() -> None:
    others = [
        replace(JUDGE, base_url="http://other/v1"),
        replace(JUDGE, model="n"),
        replace(JUDGE, temperature=0.5),
        replace(JUDGE, temperature=None),
        replace(JUDGE, max_tokens=10),
        replace(JUDGE, extra_body={"seed": 1}),
    ]
    keys = {answer_key(judge, "prompt") for judge in [JUDGE, *others]} | {answer_key(JUDGE, "other prompt")}
    assert len(keys) == len(others) + 2
    same = [replace(JUDGE, name="b"), replace(JUDGE, price_in=1.0, price_out=2.0), replace(JUDGE, api_key_env="KEY")]
    assert {answer_key(judge, "prompt") for judge in same} == {answer_key(JUDGE, "prompt")}


def test_an_answer_is_on_disk_at_once(tmp_path) -> None:
    path = tmp_path / "cache.sqlite"
    first = AnswerCache(path)
    first.put("k", (True, False, True))
    with AnswerCache(path) as second:  # the first has not been closed, as after a crash
        assert second.get("k", 3) == (True, False, True)
        assert second.get("other", 3) is None
        second.put("k", (False, False, False))
    assert first.get("k", 3) == (False, False, False)
    first.close()


@pytest.mark.parametrize("damaged", ["", "E", "EE", "EXR", 7, None])
def test_invalid_cache_entries_are_ignored(tmp_path, damaged) -> None:
    with AnswerCache(tmp_path / "cache.sqlite") as cache:
        cache.put("k", (True, True, False))
        with sqlite3.connect(tmp_path / "cache.sqlite") as connection:
            connection.execute("UPDATE judge_answers SET votes = ?", (damaged,))
        connection.close()
        assert cache.get("k", 3) is None
