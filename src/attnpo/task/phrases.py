"""The sentences of traces. Every step is one of these templates, filled in.

Rules that make `segment_steps` cut exactly at the steps: a template starts with a phrase of the lexicon, contains
no transition, branch or answer phrase after it, and is at least 80 characters long for the shortest words and
numbers (tests/unit/test_task_traces.py checks all of this). Essential steps name the event and write an equation with
signs; redundant steps use words ("48 plus 15 is 63") and no name. So the final answer, which lists the result of every
event by name, can find each of them in one place only.

`FEW` are the default sentences. `MANY` has about four times as many of every redundant kind, for traces with dozens of
redundant steps, in which a few sentences would repeat in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
INVERSE = {"+": "minus", "-": "plus", "*": "divided by", "/": "times"}

# The final answer repeats tag and result; only in these steps is the tag next to the result.
COMPUTATIONS = {
    "+": (
        "Next comes the {tag}: {equation}, because these {things} are added to the ones from before.",
        "Now for the {tag}: {equation}, as more {things} come in here and I have to put them on top.",
        "So the {tag}: {equation}, which means that the number of {things} gets larger at this point.",
        "Let me do the {tag}: {equation}, since more {things} come to {name} and they have to be added.",
    ),
    "-": (
        "Next comes the {tag}: {equation}, because these {things} are gone and have to be taken off.",
        "Now for the {tag}: {equation}, as some {things} go away here and I have to take them off.",
        "So the {tag}: {equation}, which means that the number of {things} gets smaller at this point.",
        "Let me do the {tag}: {equation}, since some {things} leave {name} and have to be taken off.",
    ),
    "*": (
        "Next comes the {tag}: {equation}, because the same number of {things} is there several times.",
        "Now for the {tag}: {equation}, as the {things} come in equal lots and I have to multiply.",
        "So the {tag}: {equation}, which means that the number of {things} is multiplied at this point.",
        "Let me do the {tag}: {equation}, since {name} has that many equal lots of {things} to multiply.",
    ),
    "/": (
        "Next comes the {tag}: {equation}, because only one of the equal parts of the {things} counts.",
        "Now for the {tag}: {equation}, as the {things} are cut in equal parts and I have to divide.",
        "So the {tag}: {equation}, which means that the number of {things} is divided at this point.",
        "Let me do the {tag}: {equation}, since {name} has one equal part of the {things} after it.",
    ),
}

# Checks that find an error open like those that find none: the opening must not reveal the outcome.
CHECK_OPENINGS = (
    "Wait, let me look at this part again,",
    "Hold on, I want to see this number again,",
    "Let me check this number again,",
    "Let me double-check this part,",
    "Let me verify this part once more,",
    "Hmm, let me make sure of this part,",
    "Just to double-check this number,",
    "Is it really this number,",
)
CHECK_BODY = " {count} {word} {operand} is {result},"
CHECK_FINE = (
    " which is the same as before, so nothing changes.",
    " and that agrees, so I can go on with the number.",
    " so it is fine as it stands and I keep it.",
)
# The corrected equation is written again, because the answer needs it; so this check is essential.
CHECK_CATCHES = (
    " not {wrong}, so I was wrong there, and {tag}: {equation}.",
    " and {wrong} is an error, so the right one is {tag}: {equation}.",
    " so {wrong} was a slip, and it has to be {tag}: {equation}.",
)

# After a computation (redundant). {result} and {count} are the true numbers of that operation.
ALTERNATIVES = (
    "Alternatively, I can go backwards here, {result} {inverse} {operand} gives back {count}, and so it does fit well.",
    "Another way to see this part is to go backwards, {result} {inverse} {operand} has to be {count}, and it is.",
    "But does it work backwards as well? With {result} {inverse} {operand} there is {count} again, so the number fits.",
)
REMARKS = (
    "Hmm, the {things} here are counted one by one, and {name} has {result} of them for the moment, I think.",
    "Okay, so this part is done and there are {result} {things} at the moment, before the story goes on.",
    "However, I should keep in mind that {name} now has {result} of the {things}, and not {count} any more.",
)

# Before the first computation (redundant). {numbers} lists the numbers of the story.
RESTATEMENTS = (
    "Okay, so the story is about {name} and some {things}, and the numbers in it are {numbers}, one after the other.",
    "The problem gives the numbers {numbers} for the {things} of {name}, and it asks how many there are at last.",
    "Alright, what is asked is the number of {things} of {name} at last, and I have the numbers {numbers} for it.",
)
FALSE_STARTS = (
    "Hmm, maybe I could put {first} and {second} together, {first} plus {second} is {sum}, but that is not the story.",
    "I could start with {second} and {first} and get {sum} at once, but the events have to be taken in their order.",
    "Now the quick way might be {first} plus {second}, which is {sum}, but no, the story does not work like that.",
)
PLANS = (
    "Let me think about how to do this, I will go through the events one by one and keep the number of {things}.",
    "First, I should see what happens to the {things} of {name}, event by event, and then do the sums in order.",
)

# After the last computation (redundant). {path} lists the counts.
RECAPS = (
    "Let me recap, the number of {things} of {name} went {path} in the story, and that seems to make sense.",
    "Putting it all together, the {things} of {name} went {path} in this order, and I see no problem with it.",
    "Just to recap the whole thing, the numbers of {things} are {path}, and all of the events are in there.",
)
CLOSING_REMARKS = (
    "Looking back at the story, I have used each of the events once and in order, and no number is left over.",
    "Is there anything else in the story? I think that all of the numbers for the {things} have been used by now.",
    "Another thought is that {result} {things} is a sensible number for {name}, as it is not too large or small.",
)

ANSWER_OPENING = "Solution:"
ANSWER_LINE = " {tag} {result},"
ANSWER_CLOSING = " \\boxed{{{answer}}}"


@dataclass(frozen=True, slots=True)
class Sentences:
    """The templates of every redundant kind, and the openings of checks (redundant or not)."""

    check_openings: tuple[str, ...]
    alternatives: tuple[str, ...]
    remarks: tuple[str, ...]
    restatements: tuple[str, ...]
    false_starts: tuple[str, ...]
    plans: tuple[str, ...]
    recaps: tuple[str, ...]
    closing_remarks: tuple[str, ...]


FEW = Sentences(
    check_openings=CHECK_OPENINGS,
    alternatives=ALTERNATIVES,
    remarks=REMARKS,
    restatements=RESTATEMENTS,
    false_starts=FALSE_STARTS,
    plans=PLANS,
    recaps=RECAPS,
    closing_remarks=CLOSING_REMARKS,
)

MANY = Sentences(
    check_openings=(
        *CHECK_OPENINGS,
        "Let me confirm this number again,",
        "Let's verify this part once more,",
        "Just to verify this number,",
        "Hmm, let me check this part again,",
        "Let me make sure of this number,",
        "Let's double-check this number,",
        "Just to make sure of this part,",
        "Is there a slip in this number,",
    ),
    alternatives=(
        *ALTERNATIVES,
        "Alternatively, I could ask what it was before, {result} {inverse} {operand} is {count}, and that agrees with it.",
        "Another approach is to start from {result} and go back, {result} {inverse} {operand} is {count}, as it should be.",
        "Another idea is to do it the other way, from {result} with {inverse} {operand} I get {count}, so it does agree.",
        "Let me just think if there is more to it, {result} {inverse} {operand} is {count}, and that is what it was before.",
        "Alternatively, this part can be seen from its end, {result} {inverse} {operand} makes {count}, and so it is fine.",
        "I guess another way is to go back from {result} to {count}, and {result} {inverse} {operand} does give {count} once more.",
        "Then I could also go back a part, {result} {inverse} {operand} is {count}, which is the number that I had before.",
        "Again, if I go backwards from {result}, then {result} {inverse} {operand} is {count}, so the number is fine here.",
    ),
    remarks=(
        *REMARKS,
        "Now the number of {things} is {result}, and that is the number I have to keep in mind for what comes, I think.",
        "Okay, at this point {name} has {result} {things}, which is a part of the story, and I have to keep it in mind.",
        "So the story is at {result} {things} now, it was {count} before this part, and there is no problem with that.",
        "Hmm, from {count} to {result} is what happens to the {things} of {name}, and it is what the story says, I think.",
        "Since {name} has {result} {things} by now, I have to go on from this number, and not from {count} once more.",
        "Given that there are {result} {things} now, the {count} from before is not needed any more and I can go on.",
        "I see that {result} is the number of {things} so far, and I can keep it in mind until it is needed in the story.",
        "In this case the {things} are {result} at the moment, and that is all that has to be known of this part here.",
    ),
    restatements=(
        *RESTATEMENTS,
        "I have the numbers {numbers} in the story, they are about the {things} of {name}, and the last count is asked.",
        "Now the story once more, there are {things} of {name}, the numbers are {numbers}, and the last count is asked.",
        "We have {name} with some {things}, the numbers of the story are {numbers}, and they have to be used in order.",
        "Again, the story has the numbers {numbers}, and all of them say what happens to the {things} that {name} has.",
        "Let's see what the story gives, the numbers are {numbers}, and the {things} of {name} are counted with them.",
        "To say it once more, {name} has {things}, the numbers are {numbers}, and how many there are at last is asked.",
    ),
    false_starts=(
        *FALSE_STARTS,
        "Let me put {first} and {second} together at once, which is {sum}, but the events in between would be lost so.",
        "Then there is {first} plus {second}, which is {sum} and looks quick, but it leaves out what happens in between.",
        "Hmm, {first} plus {second} could be {sum}, and that would be quick, but it is not what the story asks for here.",
        "Starting with {second} could be quick, {second} plus {first} is {sum}, but then the order of the events is lost.",
        "To be quick I could take {sum}, which is {first} plus {second}, but these two numbers are not put together here.",
        "We could put {second} on top of {first} and get {sum}, but that is another story, and not the one that I have.",
    ),
    plans=(
        *PLANS,
        "Now I want to go on in order, take the events as they come, and keep the last number of {things} in mind.",
        "I think the way to do it is to take the events one after the other and to keep the number of {things} in mind.",
        "Let's go through this in order, one event after the other, and for each of them see how many {things} there are.",
        "To do this I have to keep the order of the events, and for each of them do one sum with the {things} of {name}.",
        "Next I have to see which of the events are left, and take them in their order until no event of {name} is left.",
        "Okay, one event at a time is the way to do it, and after each of them I know how many {things} {name} has.",
        "Finally all that I have to do is one sum for each event, in order, and say how many {things} {name} has at last.",
    ),
    recaps=(
        *RECAPS,
        "Okay, so up to this point the {things} of {name} went {path}, and each number comes from the one before it.",
        "So the number of {things} went {path} by now, I have done the events in their order, and I see no problem there.",
        "Let's recap what there is, the numbers of {things} went {path}, and that is what the story of {name} says.",
        "Thus the {things} of {name} went {path} in the story, one event after the other, and that makes sense to me.",
        "Now all of it at once, the number of {things} went {path}, and I think that no event of {name} is left out.",
        "To put it all together, the {things} of {name} went {path}, from the first number to the last one in order.",
    ),
    closing_remarks=(
        *CLOSING_REMARKS,
        "Is it too large or too small? For {name} the number {result} seems to be fine, as it is a number of {things}.",
        "So, is that all of the story? I think so, as there are {result} {things} and no event is left over for {name}.",
        "I don't see any errors in the numbers of the {things}, and {result} is what {name} has after all of the events.",
        "Therefore the number of {things} should be {result}, and all that is left is to say it once more at the end.",
        "Hence {name} has {result} {things} at last, and this is what was asked, so that I could say the number by now.",
        "Hmm, I have {result} {things} at last, all of the events have been done, and I think that it is what was asked.",
        "Let me confirm the last number, {name} has {result} {things} after the last event, and the story ends there.",
    ),
)

SENTENCES: dict[Literal["few", "many"], Sentences] = {"few": FEW, "many": MANY}
