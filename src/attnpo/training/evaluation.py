"""Evaluation on held-out problems, kept apart from training."""

from __future__ import annotations

from collections.abc import Callable

from accelerate.utils import gather_object

from attnpo.training.recording import evaluation_metrics
from attnpo.training.records import Record, RunFolder


class HeldOutEvaluation:
    """Collects the records of held-out responses, batch by batch; then writes them and a line of evaluations.jsonl.

    Args:
        folder: the run folder.
        lexicon: its phrases are counted for the metrics.
        examples: of how many responses of this process the steps are scored: the first ones, so that the same problems
            can be compared over the run.
        writes: whether this process writes the files (the main process).
        gather: one list of all processes' lists, in their order.
    """

    def __init__(
        self,
        folder: RunFolder,
        lexicon: str,
        *,
        examples: int = 0,
        writes: bool = True,
        gather: Callable[[list[Record]], list[Record]] = gather_object,
    ) -> None:
        self.folder, self.lexicon, self.writes, self.gather = folder, lexicon, writes, gather
        self.examples = examples
        self.begin()

    def begin(self) -> None:
        """Start anew, without records."""
        self._own = 0
        self._records: list[Record] = []  # of all processes

    def to_score(self, count: int) -> int:
        """How many of the next `count` responses of this process are among the examples."""
        return max(0, min(self.examples - self._own, count))

    def add(self, records: list[Record]) -> None:
        """The records of one batch of this process. Collective: batch by batch, the order is that of the problems."""
        self._own += len(records)
        self._records += self.gather(records)

    def finish(
        self, *, step: int, seconds: float, responses: int | None = None, name: str | None = None
    ) -> dict[str, float]:
        """Write evaluations.jsonl and rollouts/; the metrics.

        name: of this set of problems where there are several; its line says it as `set`. responses: how many there
        are, None where the data set has no length. Where the problems do not fill the last round of batches, accelerate
        repeats the first ones; those are left out.
        """
        records = self._records[:responses]
        metrics = evaluation_metrics(records, self.lexicon)
        if self.writes:
            of_set = {"set": name} if name else {}
            self.folder.append("evaluations.jsonl", {"step": step, **of_set, **metrics, "seconds": round(seconds, 3)})
            self.folder.write_rollouts(f"eval-{step:06d}" + (f"-{name}" if name else ""), records)
        return metrics
