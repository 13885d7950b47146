"""Arithmetic stories: a count of things and a chain of 2 to 5 events that change it. Determined by the seed.

The words of the stories are at the end of the file: people, things, and the events of each family. Every event has a
one-word tag, which occurs in its sentences and names the event in a solution. No word there may contain a phrase of the
step lexicon.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from attnpo.checks import parse_range
from attnpo.errors import InputError

SPLITS = ("train", "test")

# difficulty -> (number of operations, largest intermediate count)
LEVELS = {1: (2, 50), 2: (2, 100), 3: (3, 100), 4: (4, 100), 5: (5, 200)}
DEFAULT_DIFFICULTY = (1, 4)
LARGEST_COUNT = max(limit for _, limit in LEVELS.values())

_MOST_ADDED = 60
_MULTIPLIERS = (2, 3, 4)
_DIVISORS = (2, 3, 4, 5, 6, 8)
_TEST_SHARE = 5  # one number chain in five belongs to the test split


@dataclass(frozen=True, slots=True)
class Operation:
    """The operation `count symbol operand`, symbol in + - * /; the tag names the event in a solution."""

    symbol: str
    operand: int
    tag: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One story. `start` and `operations` determine the computation; `answer` is the last count."""

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
    """Lowest and highest level from "2" or "1-3"; None: the default.

    Raises InputError, naming the option, for anything else.
    """
    return DEFAULT_DIFFICULTY if text is None else parse_range(text, option, "level")


def apply_operation(count: int, operation: Operation) -> int | None:
    """The next count; None if a division has a remainder or the count would be outside 1 … 2·LARGEST_COUNT."""
    n = operation.operand
    if operation.symbol == "/":
        result = count // n if count % n == 0 else 0
    else:
        result = {"+": count + n, "-": count - n, "*": count * n}[operation.symbol]
    return result if 1 <= result <= 2 * LARGEST_COUNT else None


def chain_counts(start: int, operations: tuple[Operation, ...]) -> tuple[int, ...]:
    """The count at the start and after every operation of an exact chain."""
    counts = [start]
    for operation in operations:
        count = apply_operation(counts[-1], operation)
        assert count is not None, f"inexact chain: {start} {operations}"
        counts.append(count)
    return tuple(counts)


def chain_split(start: int, operations: tuple[Operation, ...]) -> str:
    """The split of a number chain: no chain of numbers is in both splits."""
    key = f"{start}" + "".join(f"{op.symbol}{op.operand}" for op in operations)
    return "test" if zlib.crc32(key.encode()) % _TEST_SHARE == 0 else "train"


def sample_problem(
    seed: int, index: int, split: str = "train", difficulty: tuple[int, int] = DEFAULT_DIFFICULTY
) -> Problem:
    """Problem number `index` of a seed and split; difficulty is an inclusive range within 1 … 5.

    Raises InputError for an unknown split or a range outside 1 … 5.
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
    """Raise InputError for an unknown split or a difficulty range outside 1 … 5."""
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
    """Start and operations; None if the draw cannot be completed (the caller draws again)."""
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


# Words of the two splits: training uses (names A, things X) and (names B, things Y), the test split the two crossed
# combinations. So in the test split every word is known from training and every combination is new.
NAMES_A = ("Mia", "Tom", "Ana", "Leo", "Eva", "Max")
NAMES_B = ("Zoe", "Sam", "Ida", "Ben", "Amy", "Jon")


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the count: `operation` in + - * /, its one-word tag, and sentences that describe it."""

    operation: str
    tag: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of story. `openings` give the first count {n}; `products` give it as {m} lots of {n} (an operation)."""

    name: str
    things_x: tuple[str, ...]
    things_y: tuple[str, ...]
    openings: tuple[str, ...]
    products: tuple[Event, ...]
    events: tuple[Event, ...]
    questions: tuple[str, ...]


def _events(text: str) -> tuple[Event, ...]:
    """The events in lines `operation tag | sentence | sentence …`."""
    events = []
    for line in text.strip().splitlines():
        head, *sentences = (part.strip() for part in line.split("|"))
        operation, tag = head.split()
        events.append(Event(operation, tag, tuple(sentences)))
    return tuple(events)


FAMILIES: tuple[Family, ...] = (
    Family(
        "market",
        ("apples", "pears"),
        ("lemons", "onions"),
        ("{name} has {n} {things} on the stall.", "There are {n} {things} on the stall of {name}."),
        _events("""
            * crates | {name} has {m} crates with {n} {things} each. | There are {m} crates of {n} {things} for {name}.
        """),
        _events("""
            + delivery | A delivery brings {n} more {things}. | Then {n} {things} come with a delivery.
            + harvest | The harvest adds {n} {things}. | From the harvest {name} gets {n} {things}.
            + present | A farmer adds {n} {things} as a present. | {name} gets a present of {n} {things}.
            - sale | A sale takes {n} {things} away. | {name} loses {n} {things} in a sale.
            - spoilage | Then {n} {things} are lost to spoilage. | Because of spoilage {n} {things} are thrown out.
            - lunch | For lunch {n} {things} are eaten. | {name} uses up {n} {things} for lunch.
            * truck | A truck makes it {n} times as many {things}. | With a truck {name} gets to {n} times as many.
            * trade | A good trade makes it {n} times as many. | In a trade the {things} become {n} times as many.
            / baskets | They go into {n} equal baskets and {name} keeps one. | Of {n} equal baskets {name} keeps one.
            / partners | They are shared by {n} partners and {name} is one. | {name} is one of {n} partners who share.
        """),
        ("How many {things} does {name} have now?", "What number of {things} is left for {name}?"),
    ),
    Family(
        "garden",
        ("tulips", "roses"),
        ("beans", "herbs"),
        ("In the garden of {name} there are {n} {things}.", "{name} grows {n} {things} in the garden."),
        _events("""
            * rows | {name} plants {m} rows with {n} {things} each. | In {m} rows {name} puts {n} {things} each.
        """),
        _events("""
            + rain | After the rain {n} new {things} come up. | Thanks to rain there are {n} more {things}.
            + seeds | From seeds {name} raises {n} more {things}. | New seeds add {n} {things}.
            + nursery | The nursery sends {n} {things}. | {name} buys {n} {things} at the nursery.
            - frost | The frost kills {n} {things}. | Then {n} {things} die in a frost.
            - snails | The snails eat {n} {things}. | To snails {name} loses {n} {things}.
            - bouquet | For a bouquet {name} cuts {n} {things}. | A bouquet takes {n} of the {things}.
            * spring | In spring there are {n} times as many {things}. | The spring makes it {n} times as many.
            * cuttings | By cuttings {name} gets {n} times as many. | The cuttings make it {n} times as many {things}.
            / beds | They are split over {n} equal beds and {name} counts one. | Of {n} equal beds {name} keeps one.
            / cousins | They are shared by {n} cousins and {name} is one. | {name} is one of {n} cousins who share.
        """),
        ("How many {things} does {name} have now?", "What number of {things} can {name} count?"),
    ),
    Family(
        "savings",
        ("coins", "stamps"),
        ("tokens", "points"),
        ("{name} has saved {n} {things}.", "The collection of {name} holds {n} {things}."),
        _events("""
            * weeks | For {m} weeks {name} saves {n} {things} a week. | In {m} weeks {name} gets {n} {things} each.
        """),
        _events("""
            + birthday | On a birthday {name} gets {n} {things}. | A birthday brings {n} more {things}.
            + prize | A prize of {n} {things} is added. | {name} wins a prize of {n} {things}.
            + chores | For chores {name} earns {n} {things}. | Doing chores brings {n} {things}.
            - game | {name} spends {n} {things} on a game. | A game costs {name} {n} {things}.
            - debt | To pay a debt {name} gives {n} {things}. | A debt takes {n} of the {things}.
            - fee | A fee of {n} {things} is paid. | {name} pays a fee of {n} {things}.
            * bonus | A bonus makes it {n} times as many {things}. | With a bonus {name} has {n} times as many.
            * bet | {name} wins a bet and has {n} times as many. | A bet makes it {n} times as many {things}.
            / jars | They go into {n} equal jars and {name} keeps one. | Of {n} equal jars {name} keeps one.
            / sisters | They are shared by {n} sisters and {name} is one. | {name} is one of {n} sisters who share.
        """),
        ("How many {things} does {name} have now?", "What number of {things} is left for {name}?"),
    ),
    Family(
        "trip",
        ("passengers", "tourists"),
        ("students", "players"),
        ("{name} drives a bus with {n} {things}.", "A bus of {name} leaves with {n} {things}."),
        _events("""
            * vans | {name} leads {m} vans with {n} {things} each. | There are {m} vans of {n} {things} with {name}.
        """),
        _events("""
            + station | At the station {n} {things} get on. | Then {n} {things} join at the station.
            + harbour | At the harbour {n} {things} join. | The harbour brings {n} more {things}.
            + hotel | From the hotel {n} {things} come along. | {name} picks up {n} {things} at a hotel.
            - museum | At the museum {n} {things} get off. | {name} leaves {n} {things} at a museum.
            - bridge | At the bridge {n} {things} walk away. | Then {n} {things} leave at the bridge.
            - beach | At the beach {n} {things} stay behind. | The beach keeps {n} of the {things}.
            * festival | A festival makes it {n} times as many {things}. | After a festival there are {n} times as many.
            * airport | At the airport it gets {n} times as many. | The airport makes it {n} times as many {things}.
            / boats | They fill {n} equal boats and {name} takes one. | Of {n} equal boats {name} steers one.
            / guides | They are split among {n} guides and {name} is one. | {name} is one of {n} guides who share.
        """),
        ("How many {things} are with {name} now?", "What number of {things} does {name} lead at last?"),
    ),
    Family(
        "workshop",
        ("marbles", "beads"),
        ("bricks", "buttons"),
        ("{name} puts {n} {things} on the table.", "On the table of {name} there are {n} {things}."),
        _events("""
            * boxes | {name} opens {m} boxes with {n} {things} each. | There are {m} boxes of {n} {things} for {name}.
        """),
        _events("""
            + drawer | A drawer holds {n} more {things}. | {name} finds {n} {things} in a drawer.
            + parcel | A parcel brings {n} {things}. | Then {n} {things} come in a parcel.
            + friend | A friend gives {n} {things}. | {name} gets {n} {things} from a friend.
            - repair | A repair needs {n} {things}. | {name} uses {n} {things} for a repair.
            - accident | In an accident {n} {things} break. | An accident costs {n} of the {things}.
            - loan | As a loan {n} {things} are given away. | {name} gives {n} {things} as a loan.
            * machine | A machine makes it {n} times as many {things}. | With a machine {name} has {n} times as many.
            * copies | By copies {name} gets {n} times as many. | The copies make it {n} times as many {things}.
            / bags | They go into {n} equal bags and {name} keeps one. | Of {n} equal bags {name} keeps one.
            / helpers | They are split among {n} helpers and {name} is one. | {name} is one of {n} helpers who share.
        """),
        ("How many {things} does {name} have now?", "What number of {things} is left for {name}?"),
    ),
    Family(
        "reading",
        ("pages", "poems"),
        ("letters", "chapters"),
        ("{name} has {n} {things} to read.", "On the desk of {name} there are {n} {things}."),
        _events("""
            * books | {name} takes {m} books with {n} {things} each. | There are {m} books of {n} {things} for {name}.
        """),
        _events("""
            + teacher | The teacher gives {n} more {things}. | {name} gets {n} {things} from a teacher.
            + library | From the library {name} brings {n} {things}. | The library adds {n} {things}.
            + club | A club asks for {n} more {things}. | For a club {name} adds {n} {things}.
            - morning | In the morning {name} reads {n} {things}. | The morning is enough for {n} {things}.
            - train | On the train {name} reads {n} {things}. | A train ride is enough for {n} {things}.
            - evening | In the evening {n} {things} get done. | {name} reads {n} {things} in the evening.
            * exam | An exam makes it {n} times as many {things}. | For an exam {name} needs {n} times as many.
            * course | A course makes it {n} times as many. | For a course {name} has {n} times as many {things}.
            / days | They are split over {n} equal days and {name} plans one. | Of {n} equal days {name} plans one.
            / brothers | They are shared by {n} brothers and {name} is one. | {name} is one of {n} brothers who share.
        """),
        ("How many {things} has {name} to read now?", "What number of {things} is left for {name}?"),
    ),
)
