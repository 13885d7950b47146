"""Credentials in commands and options are hidden; what is no credential stays."""

from __future__ import annotations

import json
import shlex

import pytest

from attnpo.credentials import HIDDEN, hide, is_secret


@pytest.mark.parametrize("value", ["s3cretvalue", "it's-secret", "a b", 'say "x"', "hf_abcdefghijk"])
@pytest.mark.parametrize("option", ["--hub_token", "--hub-token", "--judge.api_key", "--my-password"])
def test_options_of_a_command(option, value):
    command = shlex.join(["attnpo", "train", option, value, "--seed", "3"])
    assert hide(command) == f"attnpo train {option} {HIDDEN} --seed 3"
    assert hide(f"attnpo train {option}={shlex.quote(value)} --seed 3") == f"attnpo train {option}={HIDDEN} --seed 3"


def test_values_within_json():
    options = json.dumps({"api_key": 'a"b c', "layers": 3})
    hidden = hide(shlex.join(["attnpo", "--model_init_kwargs", options]))
    assert hidden == shlex.join(["attnpo", "--model_init_kwargs", json.dumps({"api_key": HIDDEN, "layers": 3})])


@pytest.mark.parametrize("text", ["--judge_api_key_env MY_KEY", "--max_tokens 5", "https://example.org/a", "a hf_ b"])
def test_other_text_stays(text):
    assert hide(text) == text


def test_names():
    assert all(map(is_secret, ("hub_token", "OPENAI_API_KEY", "auth-token")))
    assert not any(map(is_secret, ("judge_api_key_env", "max_tokens", "tokenizer")))
