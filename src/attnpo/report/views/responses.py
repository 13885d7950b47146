"""The place of the response explorer: controls, list and reading pane, filled by the scripts of the page."""

from __future__ import annotations

from attnpo.report.data.library import Shelf
from attnpo.report.data.run import Run
from attnpo.report.views.elements import View, nothing, notices_html
from attnpo.report.words import esc

LEVELS = ("under ⅛", "⅛ – ¼", "¼ – ½", "½ – 1", "1 – 2", "2 – 4", "over 4")
EFFECTS = (
    ("attenuated", "▽", "counts less: redundant in a response that is encouraged"),
    ("protected", "◆", "does not count: essential in a response that is discouraged"),
    ("untouched", "=", "keeps the response's advantage"),
)
RULE = (
    "Evaluations and training steps are taken at even distances over the run, first and last always; of an evaluation "
    "its scored responses, of the first and the last one also other problems, at even distances of how much their "
    "responses changed; of a training step its first responses. Where they do not fit into the page's size, the middle "
    "of the run is thinned out."
)
FILTERS = {
    "Verdict": (("right", "✓ right"), ("wrong", "✗ wrong"), ("no_answer", "∅ no answer")),
    "With": (("attenuated", "▽ attenuated"), ("protected", "◆ protected"), ("truncated", "✂ cut off")),
}


def responses(runs: list[Run], shelves: list[Shelf]) -> View:
    """An explorer over `shelves`, and a note on what they do not hold."""
    notices = notices_html([notice for shelf in shelves for notice in shelf.notices])
    if not any(shelf.chunks for shelf in shelves):
        return View("responses", "Responses", notices + nothing("No responses were recorded.") if runs else "")
    return View("responses", "Responses", f"{notices}{_controls(shelves)}{_legend(shelves)}{EXPLORER}")


def _controls(shelves: list[Shelf]) -> str:
    runs = "".join(f'<option value="{index}">{esc(shelf.run)}</option>' for index, shelf in enumerate(shelves))
    groups = "".join(
        f"<fieldset><legend>{name}</legend>"
        + "".join(f'<label class="chip"><input type="checkbox" name="{key}">{label}</label>' for key, label in items)
        + "</fieldset>"
        for name, items in FILTERS.items()
    )
    hidden = "" if len(shelves) > 1 else " hidden"
    return (
        f'<form id="controls" role="search" aria-label="Choose responses"><label{hidden}>Run <select id="run">{runs}'
        '</select></label><label>Step <select id="step"></select></label><label class="find">Text <input id="find" '
        f'type="search" placeholder="in problem, thinking or answer" autocomplete="off"></label>{groups}</form>\n'
        '<noscript><p class="notice">Responses are unpacked by a script; this view needs one.</p></noscript>\n'
    )


def _legend(shelves: list[Shelf]) -> str:
    levels = "".join(f'<li class="s{index}">{label}</li>' for index, label in enumerate(LEVELS))
    effects = "".join(
        f'<li><span class="effect {name}">{mark} {name}</span> {meaning}</li>' for name, mark, meaning in EFFECTS
    )
    several = len(shelves) > 1
    left_out = "".join(
        f"<li>{esc(f'{shelf.run}: ' if several else '')}{esc('; '.join(shelf.left_out))}.</li>" for shelf in shelves
    )
    return (
        '<div class="scale"><p>Attention of the final answer to a step, as a multiple of an even spread over all tokens'
        f'</p><ol aria-label="Colour scale, from little to much attention">{levels}</ol></div>\n'
        f'<details class="more"><summary>What the marks mean, and what is not here</summary><ul class="effects">'
        f'{effects}</ul><p>This page carries:</p><ul class="effects">{left_out}</ul><p>{RULE}</p></details>\n'
    )


EXPLORER = """\
<div class="explorer">
<div class="picker"><p id="found" aria-live="polite"></p>
<ul id="list" role="listbox" tabindex="0" aria-label="Responses"></ul></div>
<div id="reader" aria-live="off"></div>
</div>
"""
