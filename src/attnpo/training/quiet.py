"""Keeping the screen of `attnpo train` to what a user can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import datasets
from transformers.utils import logging as transformers_logging

RENAMED = "checkpointing"
"""In transformers' notices about its renaming of gradient_checkpointing, which TRL still sets under the old name."""

UNJUDGED = "All reward functions returned None"
"""Start of TRL's notice about a response that could not be verified. It prints the whole response for each batch; the
verdict counts say the same."""


class _NotUnjudged(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(UNJUDGED)


@contextmanager
def quiet_screen() -> Iterator[None]:
    """Without bars for loading and writing files, and without exactly these notices; all is put back at the end."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=f".*{RENAMED}.* is deprecated", category=FutureWarning)
        logger, silent = logging.getLogger("trl.trainer.grpo_trainer"), _NotUnjudged()
        logger.addFilter(silent)
        stack.callback(logger.removeFilter, silent)
        if transformers_logging.is_progress_bar_enabled():
            transformers_logging.disable_progress_bar()
            stack.callback(transformers_logging.enable_progress_bar)
        if datasets.are_progress_bars_disabled() is False:
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        yield
