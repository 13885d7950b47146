"""Responses as HTML: every step a block, coloured by the attention that the final answer pays it."""

from __future__ import annotations

from attnpo.report.data.rollouts import Response, ScoredStep
from attnpo.report.examples import Pair
from attnpo.report.words import count, esc, plural, small

MOST_CHARACTERS = 20_000  # of one thinking text; a page with sixteen 16k-token responses must stay small
EDGES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # of the seven colour levels, in multiples of an even spread
LEVELS = ("under ⅛", "⅛ – ¼", "¼ – ½", "½ – 1", "1 – 2", "2 – 4", "over 4")
EFFECTS = {
    "attenuated": ("▽", "attenuated", "counts less: redundant in a response that is encouraged"),
    "protected": ("◆", "protected", "does not count: essential in a response that is discouraged"),
    "untouched": ("=", "untouched", "keeps the response's advantage"),
}
VERDICTS = {
    "right": ("✓", "right"),
    "wrong": ("✗", "wrong"),
    "no_answer": ("∅", "no answer"),
    "unverifiable": ("?", "unverifiable"),
    "timed_out": ("…", "timed out"),
}


def level(response: Response, step: ScoredStep) -> int | None:
    """The colour level of a step: its score in multiples of `even_share`, in seven classes; None: no colour."""
    share = response.even_share
    if step.score is None or not share:
        return None
    return sum(step.score / share >= edge for edge in EDGES)


def legend_html() -> str:
    """The scale of colours, with words for what it measures."""
    levels = "".join(f'<li class="s{index}">{label}</li>' for index, label in enumerate(LEVELS))
    return (
        '<div class="scale"><p>Attention of the final answer to a step, as a multiple of an even spread over all tokens'
        f'</p><ol aria-label="Colour scale, from little to much attention">{levels}</ol></div>'
    )


def effects_legend_html() -> str:
    items = "".join(
        f'<li><span class="effect {name}">{mark} {word}</span> {meaning}</li>'
        for name, (mark, word, meaning) in EFFECTS.items()
    )
    return f'<ul class="effects">{items}</ul>'


def pair_html(pair: Pair, number: int) -> str:
    """One held-out problem: the question, then both responses side by side."""
    before, after = pair.before, pair.after
    left = response_html(before, f"Before, step {before.step}")
    right = response_html(after, f"After, step {after.step}")
    reference = "" if before.reference is None else f' <span class="reference">Answer: {esc(before.reference)}</span>'
    return (
        f'<section class="pair"><h4>Problem {number} <small>{esc(before.id)}</small></h4>'
        f'<blockquote class="problem">{_clipped(before.problem)}{reference}</blockquote>\n'
        f'<div class="columns">{left}{right}</div></section>\n'
    )


def training_html(response: Response, number: int) -> str:
    """One training response with what the method did to each step, and the numbers that decided it."""
    facts = [
        ("advantage", small(response.advantage, signed=True)),
        ("reward", small(response.reward)),
        *((f"reward: {name}", small(value, signed=True)) for name, value in response.rewards.items()),
        ("group accuracy", small(response.group_accuracy)),
        ("baseline", "not rescaled" if response.baseline is None else small(response.baseline)),
    ]
    listed = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    listed = f'<dl class="facts">{listed}</dl>'
    title = f"Step {response.step}, group {response.group}, response {response.index}"
    return (
        f'<section class="pair"><h4>Example {number} <small>{esc(response.id)}</small></h4>'
        f'<blockquote class="problem">{_clipped(response.problem)}</blockquote>\n'
        f"{response_html(response, title, listed, show_effects=True)}</section>\n"
    )


def response_html(response: Response, title: str, facts: str = "", show_effects: bool = False) -> str:
    """A response: verdict and token counts, its steps in order, its final answer."""
    return (
        f'<article class="response"><header><h5>{esc(title)}</h5>'
        f"<p>{_verdict(response)} {_counts(response)}</p></header>"
        f'{facts}<div class="text" tabindex="0" role="region" aria-label="{esc(title)}, text">'
        f"{_steps_html(response, show_effects)}{_answer_html(response)}</div></article>"
    )


def _verdict(response: Response) -> str:
    if response.verdict is None:
        return ""
    mark, word = VERDICTS.get(response.verdict, ("·", response.verdict))
    kind = response.verdict if response.verdict in ("right", "wrong") else "other"
    cut = ' <span class="verdict other">✂ cut off</span>' if response.truncated else ""
    return f'<span class="verdict {kind}">{mark} {esc(word)}</span>{cut}'


def _counts(response: Response) -> str:
    if response.tokens is None:
        return ""
    parts = [f"<strong>{plural(response.tokens, 'token')}</strong>"]
    if response.thinking_tokens is not None:
        parts.append(f"{count(response.thinking_tokens)} thinking")
    return ", ".join([*parts, plural(len(response.steps), "step")])


def _steps_html(response: Response, show_effects: bool) -> str:
    if not response.steps:
        note = '<p class="aside">Not split into steps.</p>' if response.thinking.strip() else ""
        return f'{note}<div class="step none">{_clipped(response.thinking)}</div>' if response.thinking else ""
    blocks: list[str] = []
    reached = 0
    for position, step in enumerate(response.steps):
        if step.end > MOST_CHARACTERS:
            rest = len(response.steps) - position
            blocks.append(f'<p class="aside">{plural(rest, "further step")} left out to keep this page small.</p>')
            break
        blocks.append(_plain(response.thinking[reached : step.start]) + _step_html(response, step, show_effects))
        reached = step.end
    else:
        blocks.append(_plain(response.thinking[reached:]))
    return "".join(blocks)


def _plain(text: str) -> str:
    return f'<div class="step none">{_clipped(text)}</div>' if text.strip() else ""


def _step_html(response: Response, step: ScoredStep, show_effects: bool) -> str:
    share, shade = response.even_share, level(response, step)
    times = f"{small(step.score / share, digits=2)}×" if step.score is not None and share else "no score"
    effect = response.effect(step) if show_effects else None
    badge = ""
    if effect is not None:
        mark, word, _ = EFFECTS[effect]
        badge = f'<span class="effect {effect}">{mark} {word}, γ = {small(step.scale)}</span>'
    details = [
        step.kind,
        "tokens not recorded" if step.tokens is None else plural(step.tokens, "token"),
        f"score {small(step.score)}",
        f"even spread {small(share)}",
        f"characters {step.start}–{step.end}",
    ]
    if show_effects and step.scale is not None and response.advantage is not None:
        details.append(f"token advantage {small(step.scale * response.advantage, signed=True)}")
    classes = " ".join(["step", "none" if shade is None else f"s{shade}", *([effect] if effect else [])])
    return (
        f'<div class="{classes}" title="{esc(", ".join(details))}"><p class="label"><span>{esc(step.kind)}</span> '
        f"<span>{times}</span> {badge}</p>{_clipped(response.thinking[step.start : step.end])}</div>\n"
    )


def _answer_html(response: Response) -> str:
    if response.answer:
        return f'<div class="answer"><p class="label">final answer</p>{_clipped(response.answer)}</div>'
    return '<p class="aside">No final answer.</p>'


def _clipped(text: str) -> str:
    text = text.strip("\n ")
    if len(text) <= MOST_CHARACTERS:
        return esc(text)
    return f'{esc(text[:MOST_CHARACTERS])} <em class="aside">… {len(text) - MOST_CHARACTERS:,} characters left out</em>'
