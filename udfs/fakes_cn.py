"""Fakes of Chinese identifiers and of telephones; like fakes.py, in forms that no real one has."""

import re
from collections.abc import Callable

from gristmill.udfs import pii_values as values

Below = Callable[[int], int]
DIGITS, LETTERS = "0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ"       # number plates have no I and O
CODE = DIGITS + "ABCDEFGHJKLMNPQRTUWXY"                            # and credit codes no S, V and Z either

# Districts that have always been, of provinces with whose digits no bank card of 15 or 18 digits begins.
REGIONS = ("110101", "110105", "110108", "120101", "120103", "130102", "140105", "210102", "220102", "310101", "310104", "320102", "330102")
ID_CARD = rf"(?:{'|'.join(REGIONS)})(?:18[67]\d[01]\d[0-3]\d\d{{3}}[\dX]|\d\d[01]\d[0-3]\d99[6-9])"
CREDIT_CODE = re.compile(r"[0-9A-Z]{2}00\d{4}MA[0-9A-Z]{8}")
DOCUMENT = r"O[A-Z]?0[0-9A-Z]{3,}"
PLATE = re.compile(r"[宁青藏琼][ ]?[U-Xu-x]")
# No telephone is 1411 and seven digits more: 140 to 144 are for machines and have 13, and 411 is no area code of North America. No
# national number begins with 000, but Tajik ones do, where none begins with 06. 999 is the emergency call of Hong Kong; 026 and 0520 are
# no areas of the mainland, and within 03 and 05 no number on Taiwan begins with 1.
ABROAD = r"852999\d{5}|886[35]1\d{6,7}|86(?:1411\d{7}|26[2-8]\d{7}|520[2-8]\d{6,7})|99206\d*"
TELEPHONE = re.compile(rf"(?:\+|00)(?:{ABROAD}|(?!992){values.COUNTRY}000\d*)|1411\d{{7}}|000\d*")
AT_HOME = {"PHONE_CN": re.compile(r"0(?:26[2-8]\d{7}|520[2-8]\d{6,7})"), "PHONE_HK": re.compile(r"999\d{5}"),
           "PHONE_TW": re.compile(r"0[35]1\d{6,7}")}
AREAS = (*range(1, 10), *range(12, 20))      # after a digit from 2 to 9: the area codes that North America began with, all of them in use
NOT_NUMBER = re.compile(r"[^0-9A-Za-z+]+")


def telephone(text: str, below: Below, entity: str) -> str:
    """Country code, separators and number of digits stay, so that it is found as the same entity; an area does not."""
    form, main = values.shape(text), values.EXTENSION.sub("", values.plain(text))
    number, size = values.letters_and_digits(main), len(values.DIGIT.findall(form))
    abroad = values.INTERNATIONAL.match(main)
    kept = number[: 2 * number.startswith("00") + len(abroad[1])] if abroad else ""
    country = abroad[1] if abroad else {"PHONE_CN": "86", "PHONE_HK": "852", "PHONE_TW": "886"}.get(entity, "")
    if entity == "PHONE_NUMBER" and values.NORTH_AMERICA.fullmatch(main):
        kept, filled = number[:-10], f"{2 + below(8)}{AREAS[below(17)]:02}55501"
    else:
        filled = _beginning(country, number[len(kept) :], bool(kept), below)
    filled = (kept + filled)[:size]
    return values.fit(form, filled + values.some(below, DIGITS, size - len(filled)))


def _beginning(country: str, number: str, kept: bool, below: Below) -> str:
    """The first digits of a fake national number, without the country code."""
    trunk = "0" if number.startswith("0") else ""
    local = number[len(trunk) :]
    if country == "86" and re.fullmatch(r"1[3-9]\d{9}", number):
        return "1411"
    if country == "86" and (trunk or kept):
        short = re.fullmatch(r"(?:10|2\d)\d{8}", local)
        return trunk + f"{'26' if short else '520'}{2 + below(7)}" if short or re.fullmatch(r"[3-9]\d{9,10}", local) else "000"
    if country == "852" and len(number) == 8:
        return "999"
    if country == "886" and (kept or trunk and local[:1] != "9") and len(local) in (8, 9):
        return trunk + "35"[below(2)] + "1"
    return "06" if country == "992" else "000"


def is_telephone(text: str, entity: str = "") -> bool:
    """Whether a plain value is a telephone as above."""
    main = text if text[-7:].isdigit() else values.EXTENSION.sub("", text)
    number = NOT_NUMBER.sub("", main)
    if TELEPHONE.fullmatch(number) or entity in AT_HOME and AT_HOME[entity].fullmatch(number):
        return True
    found = values.NORTH_AMERICA.fullmatch(main) if "555" in main else None
    return found is not None and (found[1] or found[3]) == "555" and (found[2] or found[4]).startswith("01")


def id_card(text: str, below: Below) -> str:
    """18 digits: a district, a day of 1860 to 1879, check digit. 15: the order numbers 996 to 999, kept for those born before 1900."""
    form = values.shape(text)
    month, day = 1 + below(12), 1 + below(28)
    if len(values.ALNUM.findall(form)) == 15:
        number = f"{REGIONS[below(len(REGIONS))]}{below(100):02}{month:02}{day:02}{996 + below(4)}"
    else:
        number = f"{REGIONS[below(len(REGIONS))]}{1860 + below(20)}{month:02}{day:02}{1 + below(995):03}"
        number += "10X98765432"[sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(number)) % 11]     # GB 11643
    return values.fit(form, number, values.ALNUM)


def credit_code(text: str, below: Below) -> str:
    """The first two characters, a registrar in a province 00, which GB/T 2260 has not, both check digits (GB 11714, GB 32100)."""
    old = values.letters_and_digits(values.plain(text)).upper()
    body = "MA" + values.some(below, CODE, 6)
    total = sum(weight * int(c, 36) for weight, c in zip((3, 7, 9, 10, 5, 8, 4, 2), body, strict=True))
    number = old[:2] + "00" + values.some(below, DIGITS, 4) + body + "0123456789X"[-total % 11]
    number += CODE[-sum(3**place % 31 * CODE.index(c) for place, c in enumerate(number)) % 31]
    return values.fit(values.shape(text), number, values.ALNUM)


def document(text: str, below: Below) -> str:
    """Passports and travel permits: first the letter O, which no issuer uses as it reads like 0, and 0 as the first digit."""
    form = values.shape(text)
    old = "".join(values.ALNUM.findall(form))
    filled = "".join("A" if c.isalpha() else "0" for c in old[1:])
    filled = "O" + "".join(values.some(below, LETTERS if c == "A" else DIGITS, 1) for c in filled)
    at = 2 if old[1:2].isalpha() else 1
    return values.fit(form, filled[:at] + "0" + filled[at + 1 :], values.ALNUM)


def plate(text: str, below: Below) -> str:
    """Ningxia, Qinghai, Tibet or Hainan with U to X, which they have not given out; digits stay digits and letters letters."""
    form = values.shape(text)
    old = "".join(re.findall(r"[0-9A-Za-z]", values.plain(form)))
    serial = "".join(values.some(below, DIGITS if c.isdigit() else "DF" if len(old) == 7 and c in "DFdf" else LETTERS, 1) for c in old[1:])
    filled = values.fit(form[1:], "UVWX"[below(4)] + serial, re.compile(r"[0-9A-Za-z\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]"))
    return "宁青藏琼"[below(4)] + filled


def qq(text: str, below: Below) -> str:
    """000 first: QQ numbers begin with another digit than 0."""
    form = values.shape(text)
    return values.fit(form, "000" + values.some(below, DIGITS, len(values.DIGIT.findall(form)) - 3))


def wechat(text: str, below: Below) -> str:
    """0 first, for an id begins with a letter, and letters after it."""
    form = values.shape(text)
    count = len(values.ALNUM.findall(form))
    return values.fit(form, "0" + values.some(below, "abcdefghijklmnopqrstuvwxyz", count - 1), values.ALNUM)
