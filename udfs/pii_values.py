"""A found value: its normal form, by which two are the same, and its shape, which a fake takes over.

Both see through full-width characters, invisible ones and references such as `&#64;`, as pii_view does.
"""

import functools
import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable

# One name for one kind of thing, whatever the region: the same number found once with and once without +86 is one telephone.
LABELS = {
    "EMAIL_ADDRESS": "EMAIL", "IP_ADDRESS": "IP", "IP_PRIVATE": "IP_PRIVATE", "URL_CREDENTIALS": "CREDENTIALS", "PHONE_CN": "PHONE",
    "PHONE_HK": "PHONE", "PHONE_TW": "PHONE", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "BANK_CARD", "ID_CARD_CN": "ID_CARD",
    "CREDIT_CODE_CN": "CREDIT_CODE", "PASSPORT": "PASSPORT", "TRAVEL_PERMIT_CN": "TRAVEL_PERMIT", "PLATE_CN": "PLATE", "QQ": "QQ",
    "WECHAT": "WECHAT", "IBAN_CODE": "IBAN", "MAC_ADDRESS": "MAC", "CRYPTO": "WALLET", "API_KEY": "API_KEY", "GPS_COORDINATES": "GPS",
    "DATE_OF_BIRTH": "BIRTH_DATE", "US_SSN": "SSN", "PERSON": "PERSON", "LOCATION": "ADDRESS", "ORGANIZATION": "ORGANISATION",
}
PHONES = ("PHONE_CN", "PHONE_HK", "PHONE_TW", "PHONE_NUMBER")
NAMES = ("PERSON", "LOCATION", "ORGANIZATION")
EXACT = ("API_KEY", "URL_CREDENTIALS")      # upper and lower case differ
LOWER = ("EMAIL_ADDRESS", "MAC_ADDRESS", "WECHAT")
DIGIT, ALNUM = re.compile(r"\d"), re.compile(r"[^\W_]")

_REFERENCE = re.compile(r"&#(?:(\d{2,7})|[xX]([0-9A-Fa-f]{2,6}));")
_OTHER = re.compile(r"[^0-9A-Za-z]+")
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_INVISIBLE = ((0x7F, 0xA0), (0xAD, 0xAE), (0x034F, 0x0350), (0x061C, 0x061D), (0x115F, 0x1161), (0x17B4, 0x17B6), (0x180B, 0x1810),
              (0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070), (0x3164, 0x3165), (0xFE00, 0xFE10), (0xFEFF, 0xFF00), (0xFFA0, 0xFFA1),
              (0xFFF9, 0xFFFC))
_READ = {code: None for low, high in _INVISIBLE for code in range(low, high)} | dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")

# Country codes are prefix-free (ITU-T E.164), so that the digits alone tell where one ends.
COUNTRY = r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[2-9]\d\d)"
INTERNATIONAL = re.compile(rf"\(?(?:\+|00)[ ]?({COUNTRY})")
EXTENSION = re.compile(r"(?<=\d)[ ,;]{0,2}(?:转|分机|ext\.?|x|#)[ ]?(\d{1,6})$", re.IGNORECASE)
NORTH_AMERICA = re.compile(r"(?:\(?(?:\+|00)1\)?[ .\-]{0,2}|1[ .\-])?(?:\([2-9]\d\d\)[ .\-]?|[2-9]\d\d[ .\-])(\d{3})[ .\-](\d{4})"
                           r"|(?:\+|00)1[ .\-]?[2-9]\d\d(\d{3})(\d{4})")


def plain(text: str) -> str:
    """A value in NFKC, with plain dashes, without characters that nobody sees, and with numeric references resolved."""
    if "&#" in text:
        text = _REFERENCE.sub(_resolved, text)
    return text if text.isascii() else unicodedata.normalize("NFKC", text.translate(_READ))


def _resolved(match: re.Match[str]) -> str:
    code = int(match[1]) if match[1] else int(match[2], 16)
    return chr(code) if code < 0xD800 or 0xE000 <= code < 0x110000 else match[0]


def letters_and_digits(text: str) -> str:
    """The ASCII letters and digits of a plain value, other scripts' digits read as such."""
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return _OTHER.sub("", text)


@functools.lru_cache(maxsize=16384)
def value(entity: str, text: str) -> str:
    """The normal form of a value: two mentions are of one value if and only if the normal forms are equal."""
    text = plain(text)
    if entity in PHONES:
        return _telephone(entity, text)
    if entity in EXACT:
        return "".join(text.split())
    if entity == "CRYPTO":
        return text.lower() if text.startswith(("0x", "0X", "bc1", "BC1")) else text
    if entity in ("IP_ADDRESS", "IP_PRIVATE"):
        return _address("".join(text.split()).lower())
    if entity in LOWER:
        text = re.sub(r"\s?[(\[]at[)\]]\s?", "@", "".join(text.split()).lower())
        return letters_and_digits(text) if entity == "MAC_ADDRESS" else text
    if entity in NAMES:
        return ("" if is_han(text) else " ").join(text.lower().split())
    if entity == "GPS_COORDINATES":
        return "".join(text.split()).lower()
    if entity == "DATE_OF_BIRTH":
        return "-".join(part.lstrip("0") for part in re.findall(r"\d+|[^\W\d_]{3,}", text.lower()))
    return ("" if text.isascii() else "".join(_HAN.findall(text))) + letters_and_digits(text).upper()


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _telephone(entity: str, text: str) -> str:
    """+ and the country code where it is known; the national number of the mainland, Hong Kong and Taiwan without either."""
    extension = EXTENSION.search(text)
    tail, text = ("x" + extension[1], text[: extension.start()]) if extension else ("", text)
    text = text.replace("(0)", "") if "+" in text else text
    number, home = letters_and_digits(text), {"PHONE_CN": "86", "PHONE_HK": "852", "PHONE_TW": "886"}.get(entity, "")
    if NORTH_AMERICA.fullmatch(text) and not home:
        return "+1" + number[-10:] + tail
    if (found := INTERNATIONAL.match(text)) is not None:
        number = number[2 * (number[:2] == "00") :]
        if found[1] not in ("86", "852", "886"):
            return "+" + number + tail
        number, home = number[len(found[1]) :], found[1]
    elif home == "86" and len(number) == 13 and number.startswith("861"):
        number = number[2:]
    return (number if home in ("852", "") or re.fullmatch(r"1\d{10}", number) else "0" + number.lstrip("0")) + tail


def is_han(text: str) -> bool:
    """Whether there is a Chinese character."""
    return _HAN.search(text) is not None


def shape(text: str) -> str:
    """The value with its separators and full-width characters, but other letters and digits in ASCII: what `fit` writes into."""
    if "&#" in text:
        text = _REFERENCE.sub(_resolved, text)
    if text.isascii():
        return text
    return "".join(c if "\uff01" <= c <= "\uff5e" or not (form := unicodedata.normalize("NFKC", c)).isascii() else form for c in text)


def fit(form: str, characters: Iterable[str], slots: re.Pattern[str] = DIGIT) -> str:
    """The shape with its slots filled: as wide as what stood there, and in lower case where that was."""
    following = iter(characters)
    return slots.sub(lambda old: _as(next(following), old[0]), form)


def _as(new: str, old: str) -> str:
    new = new.lower() if old.islower() else new
    return chr(ord(new) + 0xFEE0) if "\uff01" <= old <= "\uff5e" else new


def draws(key: bytes, *message: str) -> Callable[[int], int]:
    """below(n): whole numbers from 0 to n - 1, the same ones for the same key and message on every machine and Python."""
    seed = hashlib.blake2b("\0".join(message).encode("utf-8", "surrogatepass"), key=key).digest()
    state, bits, block = int.from_bytes(seed, "little"), 512, 0

    def below(n: int) -> int:
        nonlocal state, bits, block
        bits -= n.bit_length()
        if bits < 64:                       # 64 spare bits keep what a remainder prefers below 2^-64
            block += 1
            state, bits = int.from_bytes(hashlib.blake2b(seed, salt=block.to_bytes(16, "little")).digest(), "little"), 512
        state, drawn = divmod(state, n)
        return drawn

    return below


def some(below: Callable[[int], int], alphabet: str, count: int) -> str:
    """`count` characters of the alphabet."""
    return "".join([alphabet[below(len(alphabet))] for _ in range(count)])
