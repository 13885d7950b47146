"""Arithmetic stories: a count of things and a chain of 2 to 5 events that change it. Deterministic by seed."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from attnpo.checks import parse_range
from attnpo.errors import InputError
from attnpo.task.stories import FAMILIES, NAMES_A, NAMES_B, Event, Family

SPLITS = ("train", "test")

# difficulty -> (operations, largest count on the way)
LEVELS = {1: (2, 50), 2: (2, 100), 3: (3, 100), 4: (4, 100), 5: (5, 200)}
DEFAULT_DIFFICULTY = (1, 4)
LARGEST_COUNT = max(limit for _, limit in LEVELS.values())

_MOST_ADDED = 60
_MULTIPLIERS = (2, 3, 4)
_DIVISORS = (2, 3, 4, 5, 6, 8)
_TEST_SHARE = 5  # one number chain in five belongs to the test split


@dataclass(frozen=True, slots=True)
class Operation:
    """`count symbol operand` with symbol in + - * /; the tag names the event in a solution."""

    symbol: str
    operand: int
    tag: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One story. `start` and `operations` are all there is to compute; `answer` is the last count."""

    id: str
    split: str
    family: str
    difficulty: int
    name: str
    things: str
    start: int
    operations: tuple[Operation, ...]
    text: str

    @property
    def counts(self) -> tuple[int, ...]:
        """The count at the start and after every operation."""
        return chain_counts(self.start, self.operations)

    @property
    def answer(self) -> int:
        return self.counts[-1]


def parse_difficulty(text: str | None, option: str) -> tuple[int, int]:
    """Lowest and highest level out of "2" or "1-3"; None is the default.

    Raises InputError, naming the option, for anything else.
    """
    return DEFAULT_DIFFICULTY if text is None else parse_range(text, option, "level")


def apply_operation(count: int, operation: Operation) -> int | None:
    """The next count; None where a division leaves a remainder or the count would leave 1 … 2·LARGEST_COUNT."""
    n = operation.operand
    if operation.symbol == "/":
        result = count // n if count % n == 0 else 0
    else:
        result = {"+": count + n, "-": count - n, "*": count * n}[operation.symbol]
    return result if 1 <= result <= 2 * LARGEST_COUNT else None


def chain_counts(start: int, operations: tuple[Operation, ...]) -> tuple[int, ...]:
    counts = [start]
    for operation in operations:
        count = apply_operation(counts[-1], operation)
        assert count is not None, f"inexact chain: {start} {operations}"
        counts.append(count)
    return tuple(counts)


def chain_split(start: int, operations: tuple[Operation, ...]) -> str:
    """The split that owns a number chain: no chain of numbers is in both."""
    key = f"{start}" + "".join(f"{op.symbol}{op.operand}" for op in operations)
    return "test" if zlib.crc32(key.encode()) % _TEST_SHARE == 0 else "train"


def sample_problem(
    seed: int, index: int, split: str = "train", difficulty: tuple[int, int] = DEFAULT_DIFFICULTY
) -> Problem:
    """Problem number `index` of a seed and split; difficulty is an inclusive range within 1 … 5.

    Raises InputError for an unknown split or a range outside the dial.
    """
    check_options(split, difficulty)
    rng = random.Random(f"{split}/{seed}/{index}")
    level = rng.randint(*difficulty)
    while True:
        family = rng.choice(FAMILIES)
        name, things = _surface(rng, family, split)
        drawn = _draw_chain(rng, family, level)
        if drawn is not None and chain_split(*drawn) == split:
            break
    start, operations = drawn
    text = _tell(rng, family, name, things, start, operations)
    return Problem(f"{split}-{seed}-{index}", split, family.name, level, name, things, start, operations, text)


def check_options(split: str, difficulty: tuple[int, int]) -> None:
    if split not in SPLITS:
        raise InputError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    low, high = difficulty
    if not min(LEVELS) <= low <= high <= max(LEVELS):
        raise InputError(f"difficulty: found {low}-{high}, expected a range within {min(LEVELS)}-{max(LEVELS)}")


def _surface(rng: random.Random, family: Family, split: str) -> tuple[str, str]:
    in_group_a = rng.random() < 0.5
    names = NAMES_A if in_group_a else NAMES_B
    things = family.things_x if in_group_a == (split == "train") else family.things_y
    return rng.choice(names), rng.choice(things)


def _draw_chain(rng: random.Random, family: Family, level: int) -> tuple[int, tuple[Operation, ...]] | None:
    """Start and operations, or None where the draw ran into a corner (the caller draws again)."""
    length, limit = LEVELS[level]
    operations: list[Operation] = []
    if rng.random() < 0.5:
        start, per = rng.randint(2, 9), rng.randint(3, 12)
        count = start * per
        if count > limit:
            return None
        operations.append(Operation("*", per, family.products[0].tag))
    else:
        start = count = rng.randint(6, limit // 2)
    free = list(family.events)
    while len(operations) < length:
        symbol = rng.choices("+-*/", (3, 3, 2, 2))[0]
        operand = _draw_operand(rng, symbol, count, limit)
        events = [event for event in free if event.operation == symbol]
        if operand is None or not events:
            return None
        event = rng.choice(events)
        free.remove(event)
        operations.append(Operation(symbol, operand, event.tag))
        count = chain_counts(count, (operations[-1],))[-1]
    return start, tuple(operations)


def _draw_operand(rng: random.Random, symbol: str, count: int, limit: int) -> int | None:
    if symbol == "+":
        choices = range(2, min(limit - count, _MOST_ADDED) + 1)
    elif symbol == "-":
        choices = range(2, min(count - 2, _MOST_ADDED) + 1)
    elif symbol == "*":
        choices = [n for n in _MULTIPLIERS if count * n <= limit]
    else:
        choices = [n for n in _DIVISORS if count % n == 0 and count // n >= 2]
    return rng.choice(choices) if choices else None


def _tell(
    rng: random.Random, family: Family, name: str, things: str, start: int, operations: tuple[Operation, ...]
) -> str:
    words = {"name": name, "things": things}
    product: dict[str, Event] = {event.tag: event for event in family.products}
    events: dict[str, Event] = {event.tag: event for event in family.events}
    first = operations[0]
    if first.tag in product:
        sentences = [rng.choice(product[first.tag].sentences).format(m=start, n=first.operand, **words)]
        rest = operations[1:]
    else:
        sentences = [rng.choice(family.openings).format(n=start, **words)]
        rest = operations
    sentences += [rng.choice(events[op.tag].sentences).format(n=op.operand, **words) for op in rest]
    sentences.append(rng.choice(family.questions).format(**words))
    return " ".join(sentences)
