r"""The unit of a number: ``5 \text{ cm}^2``, ``$5``, ``90^\circ``, ``5 apples``, ``50\%``.

A unit may be missing on either side of a comparison, so only words that cannot change the value are read as one: known
units, and English nouns in the plural. Imports only the standard library, because every verifying process loads it.
"""

from __future__ import annotations

import re

from attnpo.rewards.normal_form import is_count

_UNIT_NAMES = {
    "m": "meter metre", "cm": "cm cms centimeter centimetre", "mm": "mm millimeter millimetre",
    "km": "km kilometer kilometre", "in": "in inch inches", "ft": "ft foot feet", "mi": "mi mile", "yd": "yd yard",
    "s": "sec secs second", "min": "min mins minute", "h": "hr hrs hour", "day": "day", "week": "week",
    "month": "month", "year": "yr yrs year", "g": "gram", "kg": "kg kgs kilogram", "mg": "mg milligram",
    "lb": "lb lbs pound", "oz": "oz ounce", "L": "liter litre", "mL": "ml milliliter millilitre",
    "$": r"$ \$ usd dollar", "¢": "¢ cent", "€": "€ eur euro", "£": "£ gbp", "¥": "¥ yen yuan", "Rs": "rs rupee",
    "deg": "deg degree", "C": "celsius", "F": "fahrenheit", "K": "kelvin", "mi/h": "mph", "km/h": "kmh kph",
    "am": "am", "pm": "pm", "unit": "unit", "N": "newton", "J": "joule", "W": "watt", "Hz": "hertz", "mol": "mole",
    "V": "volt", "A": "ampere", "rad": "rad radian", "erg": "erg", "arcsec": "arcsec arcsecond", "AU": "au",
    "people": "people person", "men": "men man", "women": "women woman", "children": "children child",
    "point": "point", "way": "way", "solution": "solution", "cup": "cup", "gal": "gal gallon", "ton": "ton tonne",
}  # fmt: skip
UNITS = {
    word + plural: unit
    for unit, words in _UNIT_NAMES.items()
    for word in words.split()
    for plural in (("", "s") if len(word) > 3 else ("",))
}
_SYMBOL = re.compile(r"[kMGTmcdnpuµ]?(?:m|s|g|[lLJWNVACFTKΩ]|Hz|Pa|eV|mol|cal|bar|Wb|Wh)|h|Å|atm|rpm|ppm|[kMG]B")
_ALONE = set("msghlLNJWVΩ")
"""Single letters that are units. 5 K, 5 M and 5 B are more often counts, other letters variables."""
_FACTORS = {"m", "s", "g", "h", "l", "mg", "ml", "rs"}
"""Units that may also be factors in plain text. Of the symbols of one letter, only these are units there."""
_PLURAL = re.compile(r"(?=.*[aeiouy])[a-z]{2,}[^\Wisu]s")
_BEFORE_UNIT = re.compile("of|an?|different|distinct|possible|ordered|total|real|whole")
_AFTER_UNIT = re.compile(
    "of|in|an?|the|each|every|left|remaining|total|altogether|old|tall|long|high|wide|deep|away|apart"
)
_CHANGES_VALUE = re.compile(
    r"\d+|not?|or|and|than|less|more|fewer|minus|plus|times|but|except|over|under|above|below|before|after|if|when|half|"
    r"twice|double|triple|\w+ed"
)
_DIMENSIONS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?([$€£¥])|(USD|EUR|GBP|Rs)\b\.?)\s*(?=[\d.\\-])")
_POWER = r"\s*\^\s*\{?\s*-?\d\s*\}?"
_TEXT_UNIT = re.compile(
    rf"^(.*?[^\s\\({{\[^_])\s*((?:\\text\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}(?:{_POWER})?(?:[\s/]|\\cdot)*)+)$",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(rf"^(.*?[\d}})%])\s*([A-Za-z][A-Za-z/. ]*?(?:{_POWER}|(?<=m)[23])?|\\?[$€£¥¢])$", re.DOTALL)
_UNIT_TOKEN = re.compile(r"\^\s*\{?\s*(?P<power>-?\d)\s*\}?|(?P<word>[^\W\d_]+|\\?[$€£¥¢])|(?P<other>[^\s{}().~])")


def _unit_of(words: str, symbols: bool | None = None) -> str | None:
    """The unit that `words` name, as a product of powers (``m s^-2``); None if they may be anything else.

    Units are the known ones and English nouns in the plural; any other word after a number (doubled, prime, Millionen,
    x) may change it. `symbols`: None if the words are marked as text, else whether letters may be units.
    """
    words = re.sub(r"\\(?:text|cdot)(?![a-z])", " ", words)
    words = re.sub(r"(?<=m)([23])(?=[\s}]*$)", r"^\1", words)
    powers: dict[str, int] = {}
    last, sign, dimension = "", 1, 1
    tokens = list(_UNIT_TOKEN.finditer(words))
    for token in tokens:
        word = (token["word"] or "").lower()
        if token["power"] and last:
            powers[last] *= int(token["power"])
        elif token["other"] == "/" or word == "per":
            sign = -1
        elif last and dimension == 1 and _AFTER_UNIT.fullmatch(word):
            rest = re.findall(r"\w+", words[token.end() :].lower())
            if any(_CHANGES_VALUE.fullmatch(other) or is_count(other) for other in rest):
                return None
            break
        elif word and (name := _unit_name(token["word"], symbols, is_alone=len(tokens) == 1)):
            for position, part in enumerate(name.split("/")):
                powers[part] = powers.get(part, 0) + (-sign if position else sign) * dimension
            last, dimension = name.split("/")[0], 1
        elif word in _DIMENSIONS:
            if last:
                powers[last] *= _DIMENSIONS[word]
            else:
                dimension = _DIMENSIONS[word]
        elif not _BEFORE_UNIT.fullmatch(word):
            return None
    if len(powers) > 1:
        powers.pop("deg", None)  # degrees Celsius
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items())) or None


def _unit_name(word: str, symbols: bool | None, is_alone: bool) -> str | None:
    """The unit that one word names; None if it names none. `is_alone`: whether it is the only word."""
    lower = word.lower()
    if symbols is not None and word in _FACTORS:
        return UNITS.get(word, word) if symbols or not is_alone else None
    if lower in UNITS:
        return UNITS[lower]
    if (
        symbols is not False
        and _SYMBOL.fullmatch(word)
        and (len(word) > 1 or (symbols is None and (word in _ALONE or not is_alone)))
    ):
        return word
    return lower.removesuffix("s") if _PLURAL.fullmatch(word) and not is_count(lower) else None


def split_unit(text: str, declared: str, symbols: bool) -> tuple[str, str, bool]:
    """`text` without its unit, the unit, and whether there was a per cent sign.

    `declared`: the unit that the benchmark declares; "" for none. `symbols`: whether ``5 m``, ``5 m^2`` are metres; in
    a reference they are a product of letters.
    """
    percent = re.sub(r"\s*(?:\\?%|\\text\s*\{\s*(?:%|percent|per cent|\\%)\s*\}|\bper\s?cent(?:age)?\b)$", "", text)
    if percent != text:
        return percent, "", True
    if declared and text.endswith(declared) and text != declared:
        return text.removesuffix(declared).strip(" ~{"), _unit_of(declared) or declared, False
    degrees = re.fullmatch(
        r"(.*\S)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\\deg)\s*(?:\\text\s*\{\s*)?([CFK]?)(?:\s*\})?", text
    )
    if degrees:
        return degrees[1], degrees[2] or "deg", False
    if found := re.fullmatch(r"(.*\S)\s*(\\pmod\{\w+\})", text):
        return found[1], found[2], False
    if found := _CURRENCY.match(text):
        rest, _, _ = split_unit(text[found.end() :], "", symbols)
        return found[1] + rest, UNITS.get((found[2] or found[3]).lower(), ""), False
    if (found := _TEXT_UNIT.fullmatch(text)) and (unit := _unit_of(found[2])):
        return found[1], unit, False
    if (found := _PLAIN_UNIT.fullmatch(text)) and (unit := _unit_of(found[2], symbols)):
        return found[1], unit, False
    return text, "", False
