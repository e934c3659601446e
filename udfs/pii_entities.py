"""What an entity is: patterns over the view of a text, cue words for and against it, and a check of the value.

The entities themselves are in pii_phones.py, pii_documents.py and pii_network.py; pii_recognisers.py makes Presidio recognisers of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import regex

from gristmill.udfs.kernels_pii import DIGIT

# What a recipe calls an entity, and what Presidio does; those of NAMES only a model finds.
KEYS = {
    "email": "EMAIL_ADDRESS", "ip": "IP_ADDRESS", "ip_private": "IP_PRIVATE", "url_credentials": "URL_CREDENTIALS", "phone_cn": "PHONE_CN",
    "phone_hk": "PHONE_HK", "phone_tw": "PHONE_TW", "phone": "PHONE_NUMBER", "bank_card": "CREDIT_CARD", "id_card_cn": "ID_CARD_CN",
    "credit_code_cn": "CREDIT_CODE_CN", "passport": "PASSPORT", "travel_permit": "TRAVEL_PERMIT_CN", "plate_cn": "PLATE_CN", "qq": "QQ",
    "wechat": "WECHAT", "iban": "IBAN_CODE", "mac": "MAC_ADDRESS", "crypto": "CRYPTO", "api_key": "API_KEY", "gps": "GPS_COORDINATES",
    "birth_date": "DATE_OF_BIRTH", "ssn_us": "US_SSN", "person": "PERSON", "address": "LOCATION", "organisation": "ORGANIZATION",
}
NAMES = ("person", "address", "organisation")
# What patterns are made of: `<GUARD>` in one stands for GUARD's expression.
PIECES = {
    "START": r"(?<![0-9A-Za-z_])", "END": r"(?![0-9A-Za-z])",
    "GUARD": r"(?=[0-9(+])(?<![0-9A-Za-z._#]|\d[\-/:+]|[0-9A-Za-z]\d?[\-/])", # of a number by itself
    "TAIL": r"(?![0-9A-Za-z_]|[\-/:.]\d)",
    "SEP": r"[ \-\n]{0,2}", "GAP": r"[ \-\n]{1,2}",
    "EXTENSION": r"(?:[ ]?(?:转|分机|ext\.?|x|#)[ ]?\d{1,6})?",
    "AMOUNT": r"(?![ ]?(?:次|字节|元|万|亿|人|个|件|吨|公里|平方|千|条|bytes|yuan|usd|rmb|dollars|%))",
}
NEAR, BEHIND = 32, 14             # characters before and after a value in which a cue word counts
RAISED, LEAST, LOWERED = 0.35, 0.4, 0.4     # as Presidio: a cue adds 0.35 and gives 0.4 at least; ours against it take 0.4 away
STOP = regex.compile(r"[\n。；;！？]")
FLAGS = regex.VERSION1 | regex.MULTILINE


@dataclass(frozen=True)
class Entity:
    """One kind of personal data.

    `patterns` are (name, regular expression, score); `check(value)` says True (certain), False (not one) or None (the pattern's
    score stands); `kinds` says which windows (kernels_pii) hold every match; `context` and `against` are words near a value.
    """

    name: str
    kinds: int
    patterns: tuple[tuple[str, str, float], ...]
    context: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    check: Callable[[str], bool | None] | None = None
    country: str | None = None
    cues: tuple[str, ...] = ()        # of kind CUE: words after which, and soon after which `follow`, a value stands
    follow: int = DIGIT
    words: tuple["regex.Pattern[str] | None", "regex.Pattern[str] | None"] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", (any_of(self.context), any_of(self.against)))

    def rescored(self, score: float, before: str, after: str) -> float:
        """A score with what stands before and after the value taken into account. Certain values (1.0) stay certain."""
        if score >= 1:
            return score
        words, against = self.words
        after = STOP.split(after, maxsplit=1)[0]
        sentence = max(before.rfind(mark) for mark in "\n。；;！？") + 1       # a word for a value may stand on the line above it
        for_it, not_it = last(words, before), last(against, before, sentence)
        if not_it and not_it >= for_it:
            return max(0.01, round(score - LOWERED, 4))
        if for_it > 0 or words is not None and words.search(after):
            return min(1.0, max(LEAST, round(score + RAISED, 4)))
        return score


def last(words: "regex.Pattern[str] | None", text: str, start: int = 0) -> int:
    """Where the last of the words ends, 0 for none: of two cues the nearer one counts."""
    return max((match.end() for match in words.finditer(text, start)), default=0) if words is not None else 0


def words(listed: str) -> tuple[str, ...]:
    """The words of a list with | between them."""
    return tuple(word.strip() for word in listed.split("|"))


def pattern(text: str, **more: str) -> str:
    """A regular expression with the pieces that it names filled in; white space at the ends of its lines does not count."""
    text = "".join(line.strip() for line in text.splitlines())
    return regex.sub(r"<([A-Z][A-Z0-9]+)>", lambda name: {**PIECES, **more}[name[1]], text)


def any_of(words: Iterable[str]) -> "regex.Pattern[str] | None":
    """Any of the words: Latin ones stand apart from other letters and are no placeholder (<PHONE_1>), Chinese ones stand anywhere."""
    latin = [word for word in words if word.isascii()]
    other = [word for word in words if not word.isascii()]
    either = ([rf"(?<![a-z]|<[A-Z_]{{0,16}})(?:{'|'.join(latin)})(?![a-z]|_(?:\d+|[a-p]{{16}})>)"] if latin else []) + other
    return regex.compile("|".join(either), regex.VERSION1 | regex.IGNORECASE) if either else None


def digits(value: str) -> str:
    """The digits of a value, and the letters in upper case; no separators."""
    return "".join(c for c in value if c.isascii() and c.isalnum()).upper()
