"""The sentences a trace is made of. Every step is one of these templates, filled in.

Rules that make `segment_steps` cut exactly at the steps: a template starts with a phrase of the lexicon, contains
no transition, branch or answer phrase after it, and is at least 80 characters long for the shortest words and
numbers (tests/unit/test_task_traces.py checks all of it). Essential steps name the event and write an equation
with signs; redundant steps use words ("48 plus 15 is 63") and no name. An answer that lists the result of every event
by name therefore has one place to look each of them up.
"""

from __future__ import annotations

WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
INVERSE = {"+": "minus", "-": "plus", "*": "divided by", "/": "times"}

# The final answer repeats tag and result; only these steps have the tag next to the result.
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

# A check opens the same way whether or not it is going to find an error: the writer of the trace does not know yet.
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
# The corrected equation is written out again: the answer needs it, so this check is essential.
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
