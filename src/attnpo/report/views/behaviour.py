"""How the responses are written: phrases, steps, length of their parts, what the method did to them."""

from __future__ import annotations

from attnpo.report.data.curves import BEHAVIOUR, curves
from attnpo.report.data.run import Run
from attnpo.report.views.elements import View, charts_html


def behaviour(runs: list[Run]) -> View:
    charts = curves(runs, BEHAVIOUR)
    return View("behaviour", "Behaviour", charts_html(charts), charts)
