"""Fake values: of the same shape, with right check digits, and in forms that no real value has.

A fake is drawn by a key from the normal form of the value, so that a value has one fake in the whole corpus. It lies in a range that
is reserved for examples (RFC 2606, 3849, 5737; 555-01xx) or, where there is none, in a form that is given to nobody: `is_reserved`
tells one without the key, so that nobody looks for people in redacted text, and redacting it again changes nothing.
"""

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

from gristmill.udfs import fakes_cn, fakes_network
from gristmill.udfs import pii_values as values
from gristmill.udfs.fakes_cn import DIGITS, Below
from gristmill.udfs.fakes_network import UPPER

SSN = re.compile(r"666([ \-])\d\d\1\d{4}")
FORMS = re.compile(rf"(?P<card>(?:40{{7}}|(?:3566|6011)0{{4}}|[1-9]\d0{{6}})9\d{{3,10}})|{fakes_cn.ID_CARD}|{fakes_cn.DOCUMENT}")
IBAN = re.compile(r"[A-Z]{2}(?:00|01|99)[0-9A-Z]{8,30}")
DEGREES = re.compile(r"(\d+)(?:([.\uff0e])(\d+))?(?=[ ]?([°º度])?)")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
DATE = re.compile(r"(?P<chinese>[〇零○一二三四五六七八九]{4}(?=年)|[一二三四五六七八九十]{1,3}(?=[月日号]))"
                  r"|(?P<digits>\d+)(?P<th>st|nd|rd|th)?"
                  rf"|(?P<month>{'|'.join(f'{month[:3]}(?:{month[3:]})?' for month in MONTHS)})", re.IGNORECASE)
LONG_AGO = re.compile(r"(?<!\d)18[0-7]\d(?:\d{4})?(?!\d)|一八[〇零○一二三四五六七]"
                      r"|(?<!\d)(?:30\D{0,2}02|02\D{0,2}30)(?!\d)|(?<!\d)\d\d0230(?!\d)")


def _card(text: str, below: Below) -> str:
    """The network's first digits, zeros up to the eighth, which are for tests, then 9; Luhn."""
    form = values.shape(text)
    old = values.letters_and_digits(values.plain(form))
    brand = "4" if old[0] == "4" else "6011" if old[:4] == "6011" else {"35": "3566", "64": "65", "22": "25"}.get(old[:2], old[:2])
    body = (brand + "0000000")[:8] + "9" + values.some(below, DIGITS, len(old) - 10)
    return values.fit(form, body + str(-_luhn(body + "0") % 10))


def _luhn(number: str) -> int:
    return sum(map(int, number[-1::-2])) + sum(2 * int(c) - 9 * (c > "4") for c in number[-2::-2])


def _iban(text: str, below: Below) -> str:
    """The country, and check digits that are right by 97 but that ISO 13616 never gives: 00, 01 and 99 for 97, 98 and 02."""
    form = values.shape(text)
    old = values.letters_and_digits(values.plain(form)).upper()
    body = "".join(values.some(below, DIGITS if c.isdigit() else UPPER, 1) for c in old[4:-2])
    number, country = _letters_as_numbers(body), _letters_as_numbers(old[:2])
    for last in map("".join, itertools.product(*(DIGITS if c.isdigit() else UPPER for c in old[-2:]))):      # these meet every remainder
        check = {1: "00", 0: "01", 96: "99"}.get(int(number + _letters_as_numbers(last) + country + "00") % 97)
        if check:
            break
    return values.fit(form, old[:2] + (check or "99") + body + last, values.ALNUM)


def _letters_as_numbers(text: str) -> str:
    """ISO 7064: 10 for A to 35 for Z."""
    return text if text.isdigit() else "".join([str(int(c, 36)) for c in text])


def _ssn(text: str, below: Below) -> str:
    """Area 666, which the Social Security Administration does not give out."""
    return values.fit(values.shape(text), f"666{1 + below(99):02}{1 + below(9999):04}")


def _place(text: str, below: Below) -> str:
    """Near a pole: latitude 86 to 89, longitude 100 to 179, as many digits behind the point as there were; minutes and seconds under 60."""
    form, seen = values.shape(text), 0
    marked, first = re.search("[°º度]", form) is not None, DEGREES.search(form)
    sides = re.search("[EWew东西\uff25\uff37]", form), re.search("[NSns北南\uff2e\uff33]", form)
    turned = bool(first and int(first[1]) > 90 or sides[0] and sides[1] and sides[0].start() < sides[1].start())

    def number(old: re.Match[str]) -> str:
        nonlocal seen
        seen += not marked or bool(old[4])
        if marked and not old[4]:
            new = f"{below(60):02}"[-len(old[1]) :]
        else:
            new = str(100 + below(80) if (seen == 2) != turned else 86 + below(4))
        new = values.fit(old[1][0] * len(new), new)
        return new + old[2] + values.fit(old[3], values.some(below, DIGITS, len(old[3]))) if old[2] else new

    return DEGREES.sub(number, form)


def _is_place(text: str) -> bool:
    marked = re.search("[°º度]", text) is not None
    degrees = sorted(int(found[1]) for found in DEGREES.finditer(text) if not marked or found[4])
    return len(degrees) == 2 and 86 <= degrees[0] <= 89 and 100 <= degrees[1] <= 179


def _birth(text: str, below: Below) -> str:
    """A day of 1860 to 1879, in the language and order of the date; where the century is not written, the 30th of February."""
    form = values.shape(text)
    numbers = [found["digits"] for found in DATE.finditer(form) if found["digits"]]
    known = not numbers or any(len(number) in (4, 8) for number in numbers)
    year, short = 1860 + below(20), ["30", "02", f"{below(100):02}"]
    unknown = iter(short[::-1] if numbers and int(numbers[0]) > 31 else short)

    def part(old: re.Match[str]) -> str:
        if old["month"]:
            new = MONTHS[below(12)][: 3 if len(old["month"]) == 3 else None]
            return new.upper() if old["month"].isupper() else new.lower() if old["month"].islower() else new
        if old["chinese"]:
            return "".join("〇一二三四五六七八九"[int(c)] for c in (str(year) if len(old["chinese"]) == 4 else str(1 + below(9))))
        size = len(old["digits"])
        if not known:
            new = short[2] + "0230" if size == 6 else next(unknown, old["digits"])
        elif size == 4:
            new = str(year)
        else:
            new = f"{year}0{1 + below(9)}0{1 + below(9)}" if size == 8 else f"{1 + below(9):0{size}}"
        return values.fit(old["digits"][0] * len(new), new) + ({"1": "st", "2": "nd", "3": "rd"}.get(new[-1], "th") if old["th"] else "")

    return DATE.sub(part, form)


@functools.cache
def _faker(locale: str) -> Any:
    from faker import Faker  # slow to load, and for names alone

    return Faker(locale)


def _seeded(text: str, below: Below) -> tuple[Any, bool]:
    han = values.is_han(text)
    faker = _faker("zh_CN" if han else "en_US")
    faker.seed_instance(below(2**48))
    return faker, han


def _person(text: str, below: Below) -> str:
    """李某华, as Chinese courts write who is not to be named; an English surname that ends in -Doe."""
    faker, han = _seeded(text, below)
    if han:
        return faker.last_name() + "某" + faker.first_name()[:1]
    return (faker.first_name() + " " if len(text.split()) > 1 else "") + faker.last_name() + "-Doe"


def _location(text: str, below: Below) -> str:
    """An address, where there was a number, or the name of a place, with 某 or Example in it."""
    faker, han = _seeded(text, below)
    if not any(map(str.isdigit, text)):
        return faker.city_name() + "某地" if han else f"{faker.city_prefix()} Example{faker.city_suffix()}"
    number = 1 + below(999)
    return f"{faker.province()}某市某区{faker.street_name()}{number}号" if han else f"{number} Example {faker.street_suffix()}"


def _organisation(text: str, below: Below) -> str:
    faker, han = _seeded(text, below)
    return "某" + faker.company() if han else f"Example {faker.last_name()} {faker.company_suffix()}"


FAKES: dict[str, Callable[[str, Below], str]] = {
    **{entity: functools.partial(fakes_cn.telephone, entity=entity) for entity in values.PHONES},
    **dict.fromkeys(("PASSPORT", "TRAVEL_PERMIT_CN"), fakes_cn.document),
    **dict.fromkeys(("IP_ADDRESS", "IP_PRIVATE"), fakes_network.address), "ID_CARD_CN": fakes_cn.id_card, "PLATE_CN": fakes_cn.plate,
    "CREDIT_CODE_CN": fakes_cn.credit_code, "QQ": fakes_cn.qq, "WECHAT": fakes_cn.wechat, "CREDIT_CARD": _card, "IBAN_CODE": _iban,
    "US_SSN": _ssn, "URL_CREDENTIALS": fakes_network.credentials, "MAC_ADDRESS": fakes_network.mac, "CRYPTO": fakes_network.wallet,
    "API_KEY": fakes_network.secret, "GPS_COORDINATES": _place, "DATE_OF_BIRTH": _birth, "PERSON": _person, "LOCATION": _location,
    "ORGANIZATION": _organisation,
}
ENTITIES = frozenset(FAKES) | {"EMAIL_ADDRESS"}


# The normal forms that the makers above need.
WRITTEN = {
    "ID_CARD_CN": re.compile(r"\d{14}(?:\d{3})?[\dX]"), "CREDIT_CODE_CN": re.compile(rf"[{fakes_cn.CODE}]{{2}}[0-9A-Z]{{16}}"),
    "CREDIT_CARD": re.compile(r"[1-9]\d{11,18}"), "IBAN_CODE": re.compile(r"[A-Z]{2}\d\d[0-9A-Z]{10,30}"), "US_SSN": re.compile(r"\d{9}"),
    "MAC_ADDRESS": re.compile(r"[0-9a-f]{12}"), "CRYPTO": re.compile(r"[13T]\w{24,40}|bc1\w{11,80}|0x\w{40}"),
}


@functools.lru_cache(maxsize=16384)
def fake(entity: str, text: str, key: bytes) -> str | None:
    """The fake of a value as it is written, the same for the same key (at most 64 bytes) and normal form. KeyError: no such entity.

    None for what has not the form of the entity, such as a card of ten digits: somebody else's recogniser may have found it.
    """
    normal = values.value(entity, text)
    if (form := WRITTEN.get(entity)) is not None:
        slots = len(values.ALNUM.findall(values.shape(text)))
        if not form.fullmatch(normal) or entity != "CRYPTO" and slots != len(normal):
            return None
    below = values.draws(key, values.LABELS[entity], normal)
    if entity == "EMAIL_ADDRESS":
        made = fakes_network.mail(text, below, functools.partial(values.draws, key, "domain"))
    else:
        made = FAKES[entity](text, below)
    return made if is_reserved(entity, made) else None


def _is_number(text: str, entity: str = "") -> bool:
    """Any fake number: what one recogniser leaves alone another could take for its own, such as groups of a card for a telephone."""
    if fakes_cn.is_telephone(text, entity):
        return True
    found = FORMS.fullmatch(values.letters_and_digits(text).upper())
    if found is not None:
        return not found["card"] or _luhn(found["card"]) % 10 == 0
    return text.startswith(("19", "20", "666")) and (SSN.fullmatch(text) is not None or fakes_network.is_address(text))


RESERVED: dict[str, Callable[[str], object]] = {
    **{entity: functools.partial(_is_number, entity=entity) for entity in values.PHONES},
    **dict.fromkeys(("CREDIT_CARD", "ID_CARD_CN", "PASSPORT", "TRAVEL_PERMIT_CN", "QQ"), _is_number),
    **dict.fromkeys(("IP_ADDRESS", "IP_PRIVATE"), fakes_network.is_address),
    **dict.fromkeys(("LOCATION", "ORGANIZATION"), re.compile(r"某|(?i:\bexample)").search),
    "US_SSN": lambda text: text.startswith("666") or _is_number(text),
    "EMAIL_ADDRESS": fakes_network.is_mail,
    "URL_CREDENTIALS": lambda text: fakes_network.SECRET.fullmatch(text.rpartition(":")[2]),
    "CREDIT_CODE_CN": lambda text: fakes_cn.CREDIT_CODE.fullmatch(values.letters_and_digits(text).upper()),
    "PLATE_CN": fakes_cn.PLATE.match,
    "WECHAT": lambda text: text.startswith("0"),
    "IBAN_CODE": lambda text: IBAN.fullmatch(values.letters_and_digits(text).upper()),
    "MAC_ADDRESS": fakes_network.MAC.fullmatch,
    "CRYPTO": fakes_network.WALLET.fullmatch,
    "API_KEY": fakes_network.is_secret,
    "GPS_COORDINATES": _is_place,
    "DATE_OF_BIRTH": LONG_AGO.search,
    "PERSON": lambda text: "某" in text or text.endswith("-Doe"),
}


@functools.lru_cache(maxsize=16384)
def is_reserved(entity: str, text: str) -> bool:
    """Whether a value, as it is written, is nobody's: every fake is, and no real value. False for entities without fakes."""
    test = RESERVED.get(entity)
    return test is not None and bool(test(values.plain(text)))
