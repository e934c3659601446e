"""Whether a value can be what it looks like: check digits, prefixes that are given out, ranges.

Each says True (certain), False (not one) or None (the pattern's score stands). Sources: GB 11643 (identity number), GB 32100 (credit
code), ISO 7812 (cards), ISO 13616 (IBAN), MIIT's numbering plan, the Public Suffix List, RFC 4291 and 5737, BIP 173.
"""

import datetime
import functools
import hashlib
import ipaddress
import math
from collections import Counter

import phonenumbers
import regex
from stdnum import bitcoin, iban, luhn
from stdnum.cn import ric, uscc

from gristmill.udfs.pii_entities import digits, words

REGIONS = frozenset(words("11|12|13|14|15|21|22|23|31|32|33|34|35|36|37|41|42|43|44|45|46|50|51|52|53|54|61|62|63|64|65|71|81|82|83"))
AUTHORITIES = frozenset(words("""11|12|13|19|21|29|31|32|33|34|35|39|41|49|51|52|53|59|61|62|69|71|72|79|81|89|91|92|93|
    A1|A9|N1|N2|N3|N9|Y1"""))


def born(year: int, month: int, day: int) -> bool:
    """Whether somebody may have been born on that day."""
    try:
        return 1860 <= datetime.date(year, month, day).year <= 2100
    except ValueError:
        return False


def id_card(value: str) -> bool | None:
    """18 digits: region, date and check digit (certain). 15 digits, until 1999: region and date, which prove little."""
    number = digits(value)
    if number[:2] not in REGIONS:
        return False
    if len(number) == 15:
        return None if born(1900 + int(number[6:8]), int(number[8:10]), int(number[10:12])) else False
    right = number[-1] == ric.calc_check_digit(number)
    return right and born(int(number[6:10]), int(number[10:12]), int(number[12:14])) and number[6:8] in ("18", "19", "20")


def credit_code(value: str) -> bool:
    """An authority that registers, a province, and the check digit of GB 32100."""
    number = digits(value)
    return number[:2] in AUTHORITIES and number[2:4] in REGIONS | {"10"} and bool(uscc.is_valid(number))


# (first digits from, to, lengths) of the networks; Visa has 13, 16 and 19, JCB 15 and 16, UnionPay 16 to 19.
NETWORKS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4, 4, (13, 16, 19)), (51, 55, (16,)), (2221, 2720, (16,)), (34, 34, (15,)), (37, 37, (15,)), (300, 305, (14, 16)), (36, 36, (14, 16)),
    (38, 39, (14, 16)), (309, 309, (14, 16)), (3528, 3589, (16,)), (1800, 1800, (15,)), (2131, 2131, (15,)), (6011, 6011, (16, 19)),
    (644, 649, (16, 19)), (65, 65, (16, 19)), (62, 62, (16, 17, 18, 19)), (81, 81, (16, 17, 18, 19)), (955880, 955888, (19,)),
    (955898, 955999, (16,)), (436742, 436745, (16, 19)), (9558, 9558, (19,)), (60, 60, (16, 17, 18, 19)), (690755, 690755, (15,)),
)
OTHERS = (35, 50, 56, 57, 58, 60, 63, 66, 67, 68, 69)      # Maestro, and JCB outside of what it gives out: with a cue only


def bank_card(value: str) -> bool | None:
    """Luhn, a network's first digits and length, and groups of four and more where there are any; certain from 14 digits on."""
    number = digits(value)
    groups = value.replace("-", " ").split()
    if len(set(number)) < 2 or not luhn.is_valid(number) or any(len(group) < 4 for group in groups[:-1]):
        return False
    for low, high, lengths in NETWORKS:
        if len(number) in lengths and low <= int(number[: len(str(low))]) <= high:
            return True if len(number) >= 14 else None
    return None if int(number[:2]) in OTHERS and len(number) in (12, 13, 14, 16, 18, 19) else False


_DAY, _MONTH = r"(?:[12]\d|3[01]|0?[1-9])", r"(?:1[0-2]|0?[1-9])"
DATES = regex.compile(rf"(?:18|19|20)\d{{2}}[-./]{_MONTH}[-./]{_DAY}(?!\d)|{_DAY}[-./]{_DAY}[-./](?:18|19|20)\d{{2}}(?!\d)"
                      r"|(?:19|20)\d{2}\s?[-~]\s?(?:19|20)\d{2}(?!\d)")
# One decimal point, thousands between points, a ZIP code with its addition, six pairs of a lottery.
FIGURE = regex.compile(r"\d+\.\d+|\d{1,3}(?:\.\d{3})+|\d{5}-\d{4}|\d\d(?:[ .\-]\d\d){5,}")
# How people group the eleven digits.
GROUPED = {(11,), (3, 4, 4), (3, 3, 5), (4, 3, 4), (4, 4, 3), (3, 8), (5, 6), (7, 4), (3, 2, 3, 3), (3, 2, 2, 2, 2)}


def mobile(value: str) -> bool | None:
    """A mainland number; certain with a country code. Digits that only repeat are examples, and groups are as people make them."""
    number = digits(value)
    if len(set(number[-8:])) < 2:
        return False
    if number[-11:-9] in ("13", "14", "15", "16", "17", "18", "19") and len(number) in (11, 13, 15):
        groups = [len(group) for group in regex.split(r"\D+", value.strip("()+ -"))]
        for prefix in (13, 15):
            if len(number) == prefix and groups:
                groups = groups[1:] if groups[0] == prefix - 11 else [groups[0] - prefix + 11, *groups[1:]]
        if tuple(groups) not in GROUPED:
            return False
    return True if len(number) > 11 and value.lstrip("(").startswith(("+", "00")) else None


def document(value: str) -> bool | None:
    """Digits that only repeat are examples."""
    return None if len(set(digits(value)[-7:])) > 1 else False


def hong_kong(value: str) -> bool | None:
    return _valid(value, "HK")


def taiwan(value: str) -> bool | None:
    return _valid(value, "TW")


def _valid(value: str, region: str) -> bool | None:
    """False for no number of the region, True for one with its country code."""
    try:
        parsed = phonenumbers.parse(value if not value.startswith("00") else "+" + value[2:], region)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number_for_region(parsed, region):
        return False
    return True if value.startswith(("+", "00")) else None


def phone(value: str) -> bool | None:
    """A number with a country code is certain if its country has such numbers, and stays a pattern if it may have; others are patterns."""
    number = digits(value.lower().partition("x")[0])
    address = value.count(".") == 3 and all(int(piece) < 256 for piece in value.split(".") if piece.isdigit())
    if len(set(number)) < 3 or not 7 <= len(number) <= 17 or address:
        return False
    if len(number) == 10 and number[:3] in ("400", "800"):
        return False                                            # a company's, not a person's
    if value.startswith(("+", "00")):
        try:
            parsed = phonenumbers.parse("+" + (number[2:] if number.startswith("00") else number), None)
        except phonenumbers.NumberParseException:
            return False
        if parsed.country_code in (86, 852, 886):
            return False                                        # entities of their own
        return True if phonenumbers.is_valid_number(parsed) else None if value.startswith("+") else False
    if len(number) == 11 and "13" <= number[:2] <= "19":
        return False                                            # mainland mobile: that entity, or nothing
    if len(number) > 12 or FIGURE.fullmatch(value):
        return False
    return False if dated(value) or len(number) in (8, 14) and dated_like(number) else None


def dated_like(number: str) -> bool:
    """Whether the digits are a date such as 20240131."""
    return number[:2] in ("19", "20") and number[4:6] <= "12" and number[6:8] <= "31"


def dated(value: str) -> bool:
    return DATES.match(value) is not None


def account(value: str) -> bool:
    """IBAN: the country's length and the remainder by 97."""
    return bool(iban.is_valid(digits(value), check_country=False))


@functools.cache
def _suffixes() -> object:
    """The Public Suffix List that tldextract ships: it would fetch a newer one from the network, and write it to the home folder."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@functools.lru_cache(maxsize=65536)
def domain(name: str) -> bool:
    """Whether a name has a public suffix and something before it."""
    found = _suffixes()(name)                          # type: ignore[operator]
    return bool(found.suffix and found.domain)


AT = regex.compile(r"[ ]?[(\[]at[)\]][ ]?|@", regex.IGNORECASE)


def mail(value: str) -> bool:
    """A mailbox at a domain with a public suffix; accounts that are services (git@) and reserved domains are nobody's."""
    local, host = AT.split(value, maxsplit=1)
    return len(local) <= 64 and local.lower() != "git" and domain(host.lower())


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None
    if found.version == 6 and (len(value) < 6 and value != "::1" or sum(bool(piece) for piece in value.split(":")) < 2):
        return None                                    # std::be, a::b
    return found


def public_address(value: str) -> bool | None:
    """Addresses that the Internet routes. Four small numbers are more often a version or a chapter: they need a cue."""
    found = _address(value)
    return None if found is not None and found.is_global and not found.is_multicast else False


def private_address(value: str) -> bool | None:
    """Private, loopback, link-local, shared and multicast addresses; not the all-zero ones, masks and documentation ranges."""
    found = _address(value)
    if found is None or found.is_global and not found.is_multicast or found.is_unspecified or value.startswith(("255.", "0.")):
        return False
    documents = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8", "2001:DB8")
    return False if value.startswith(documents) else None


def mac(value: str) -> bool | None:
    number = "".join(c for c in value if c.isalnum()).upper()
    return False if len(set(number)) < 3 or number in ("0123456789AB", "001122334455", "112233445566") else None


BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def wallet(value: str) -> bool | None:
    """Bitcoin and Tron by their checksums (certain), Ethereum by its length, and EIP-55 is not asked for."""
    if value.startswith(("0x", "0X")):
        return None if len(set(value[2:].lower())) > 4 else False
    if value.startswith("T"):
        number = 0
        for c in value:
            number = number * 58 + BASE58.index(c)
        raw = number.to_bytes(25, "big")
        return raw[0] == 0x41 and hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]
    return bool(bitcoin.is_valid(value))


def entropy(value: str) -> float:
    """Bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def secret(value: str) -> bool | None:
    """False for what no random generator gave out: words, repetitions, placeholders (xxxx, your-key, example)."""
    if value.startswith("-----"):
        return None
    plain = any(word in value.lower() for word in ("example", "your", "xxxx", "1234567890", "abcdef"))
    return False if plain or entropy(value) < 3 or not any(c.isdigit() for c in value) else None


def degrees(value: str) -> bool | None:
    """Two numbers within the ranges of latitude and longitude, in either order, that are not the origin."""
    found = [abs(float(number)) for number in regex.findall(r"\d{1,3}\.\d+", value)]
    if "°" in value or "度" in value or len(found) != 2:
        return None
    small, large = sorted(found)
    return None if small <= 90 and large <= 180 and large > 0.01 else False
