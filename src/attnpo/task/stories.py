"""The words of the stories: people, things, and the events of each family.

A story is one running count of things that events change. Every event carries a one-word tag (it occurs in its
sentences): a solution names the event by it. No word here may contain a phrase of the step lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass

# Train and test surfaces: (names A, things X) and (names B, things Y) are seen in training, the two crossed
# combinations only in the test split. So every word is known and every combination is new.
NAMES_A = ("Mia", "Tom", "Ana", "Leo", "Eva", "Max")
NAMES_B = ("Zoe", "Sam", "Ida", "Ben", "Amy", "Jon")


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the count: `operation` in + - * /, its one-word tag, and ways to tell it."""

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
    """Lines `operation tag | sentence | sentence …` to events."""
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
