"""`attnpo eval`: accuracy and length of a model on benchmarks."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Sample a model on benchmarks, check its answers, and write samples and results to a folder.

An evaluation that was interrupted, or killed, goes on when the same command is given again. `attnpo compare` puts
evaluations side by side. `attnpo benchmarks list` names the benchmarks."""

PARSER_OPTIONS = {
    "usage": "attnpo eval --model M --benchmarks A,B,… -o DIR [OPTION …]",
    "description": DESCRIPTION,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to write, or to go on with")
    add("--benchmarks", metavar="A,B,…", required=True, help="names, separated by commas")
    add("--data-dir", metavar="DIR", type=Path, help="folder with the benchmarks' files (default: the Hub)")
    add("--limit", metavar="N", type=int, help="a fixed subset of N problems of every benchmark")
    add("--name", help="what to call the model in results (default: the last part of its name)")
    add("--base", metavar="DIR", type=Path, help="the evaluation of the model to compare with (AES)")
    add("--budgets", metavar="N,N,…", help="token budgets to give accuracies for (default: 2048 … 32768)")
    add(
        "--write",
        metavar="FORMAT",
        help="write it for others too: every-eval-ever, lighteval, or both with a comma",
    )
    add("--overwrite", action="store_true", help="begin anew where the folder holds an evaluation")
    add(
        "--answer-judge",
        metavar="URL#MODEL",
        help="an OpenAI-compatible endpoint that is asked about mathematical answers the verifier cannot decide; its "
        "verdicts are judged_right and judged_wrong (default: none)",
    )
    add("--answer-judge-key-env", metavar="VAR", help="environment variable with its key (default: no key is sent)")

    model = parser.add_argument_group("model")
    add = model.add_argument
    add(
        "--model",
        metavar="M",
        required=True,
        help="overthinker, smollm2, a folder, a Hub name, a PEFT adapter or a GGUF file",
    )
    add("--revision", help="of a model of the Hub")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")
    add("--engine", default="transformers", help="transformers (default) or vllm")
    add("--device", help="default: cuda where there is a GPU, else cpu")
    add("--dtype", help="float32, bfloat16 or float16 (default: float32 on a CPU, else bfloat16)")
    add("--attn-implementation", metavar="A", help="as in transformers: sdpa, flash_attention_2, …")
    add("--batch-size", metavar="N", type=int, help="responses at once (default: 32, vLLM: 512)")

    sampling = parser.add_argument_group("sampling")
    add = sampling.add_argument
    add("--samples", metavar="N", type=int, help="responses per problem (default: the benchmark's own, 4 or 16)")
    add("--temperature", metavar="T", type=float, default=0.6, help="0: greedy, one sample (default: 0.6)")
    add("--top-p", metavar="P", type=float, default=0.95, help="nucleus sampling (default: 0.95)")
    add(
        "--max-tokens",
        metavar="N",
        type=int,
        default=32768,
        help="of a response (default: 32768; never more than the model's context leaves)",
    )
    add("--seed", type=int, default=0, help="every response has a seed of its own, derived from it (default: 0)")
    add(
        "--prompt-template",
        metavar="TEXT",
        help=r"text containing {problem}: the user message, or the whole prompt (\n: line break)",
    )
    add("--chat-template-kwargs", metavar="JSON", help="for the chat template, e.g. '{\"enable_thinking\": false}'")
    add(
        "--thinking-format",
        metavar="NAME|FILE.yaml",
        default="auto",
        help="how the model marks its thinking (docs/thinking-formats.md; default: auto, what its tokenizer shows)",
    )
    add(
        "--thinking",
        default="auto",
        help="yes: only what follows the end of the thinking is an answer; no: the whole response is; auto (default): "
        "as the prompt or, where it does not say, the responses have it",
    )


def run(args: argparse.Namespace) -> None:
    from attnpo.evaluation.metrics import read_budgets
    from attnpo.evaluation.options import EvalOptions
    from attnpo.evaluation.results import print_results
    from attnpo.evaluation.run import evaluate

    values: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in ("command", "run", "rest")}
    values["benchmarks"] = [name.strip() for name in args.benchmarks.split(",") if name.strip()]
    values["write"] = [] if args.write is None else [form.strip() for form in args.write.split(",")]
    values["budgets"] = None if args.budgets is None else read_budgets(args.budgets)
    values["chat_template_kwargs"] = {} if args.chat_template_kwargs is None else mapping(args.chat_template_kwargs)
    results = evaluate(EvalOptions(**values), command=shlex.join(["attnpo", *sys.argv[1:]]))
    print_results(results)
    print(f"evaluation: {args.output}", file=sys.stderr)


def mapping(text: str) -> dict[str, Any]:
    """InputError where the text is no JSON object."""
    from attnpo.errors import InputError

    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"--chat-template-kwargs: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"--chat-template-kwargs: found {text!r}, expected an object")
    return found
