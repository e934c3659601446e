"""Fakes of what stands on a network: addresses, credentials, keys, wallets; like fakes.py, in forms that no real one has."""

import functools
import hashlib
import ipaddress
import re
from collections.abc import Callable

from gristmill.udfs import pii_values as values
from gristmill.udfs.fakes_cn import DIGITS, Below

LOWER = "abcdefghijklmnopqrstuvwxyz"
UPPER = LOWER.upper()
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
AT = re.compile(r"@|\uff20|&#0*64;|&#[xX]0*40;|[ ]?[(\[]at[)\]][ ]?", re.IGNORECASE)
EXAMPLES = (".example.com", ".example.net", ".example.org")      # below the names of RFC 2606; they themselves stand in real manuals
OPEN = {"org", "edu", "gov", "ac", "mil"}
SECRET = re.compile(r"[A-Za-z]{5,}EXAMPLE")
BLOCK = re.compile(r"(-----[^-]+-----)")
KEY = re.compile(r"(?:sk-(?:proj-|svcacct-|ant-[a-z0-9]{1,12}-)?|AKIA|ASIA|AKID|LTAI|AIza|eyJ|SG\.|bce-v3/ALTAK-"
                 r"|[A-Za-z]{2,6}[_\-](?:(?:live|test|pat|v1)_)?)(?=.{12})")
V4 = re.compile(r"(?:192\.0\.2|198\.51\.100|203\.0\.113|198\.1[89]\.\d{1,3})\.\d{1,3}")
V6 = re.compile(r"2001:0?db8:", re.IGNORECASE)
MAC = re.compile(r"[A-Fa-f][37BFbf](?:[:\-.]?[0-9A-Fa-f]){10}")
WALLET = re.compile(r"[13T]ExampLeAddress\w+|(?:bc1|BC1)\w(?i:exampleaddress)\w+|0[xX][a-fA-F]{40}")


def mail(text: str, below: Below, of: Callable[[str], Below]) -> str:
    """Letters for letters, under a name of example.com (.net, .org) that is drawn by `of(domain)`: one domain keeps one name."""
    found = AT.search(text)
    local, sign, domain = (text[: found.start()], found[0], text[found.end() :]) if found else (text, "@", "")
    form, parts = values.shape(local), values.plain(domain).lower().split(".")
    digits = DIGITS if len(values.DIGIT.findall(form)) < 7 else LOWER             # seven could be read as a telephone
    filled = [values.some(below, digits if c.isdecimal() else UPPER if c.isupper() else LOWER, 1) for c in values.ALNUM.findall(form)]
    top = ".org" if OPEN & set(parts) else ".net" if parts[-1] == "net" else ".com"
    name = values.some(of(".".join(parts)), LOWER, min(12, max(2, len(parts[0]))))
    return values.fit(form, filled, values.ALNUM) + sign + name + ".example" + top


def is_mail(text: str) -> bool:
    """Below a reserved name, or the end of a fake password with the host after it."""
    local, _, domain = text.rpartition("@")
    return text.lower().endswith(EXAMPLES) or bool(domain and SECRET.fullmatch(local))


def credentials(text: str, below: Below) -> str:
    """Letters, the password with EXAMPLE at its end."""
    user, colon, password = values.shape(text).rpartition(":")
    name = values.some(below, LOWER, len(values.ALNUM.findall(user)))
    return values.fit(user, name, values.ALNUM) + colon + values.some(below, LOWER, max(6, min(40, len(password)) - 7)) + "EXAMPLE"


def address(text: str, below: Below) -> str:
    """Public ones in TEST-NET-1 to 3 and 198.18.0.0/16, others in 198.19.0.0/16; IPv6 in 2001:db8::/32, as long as it was."""
    plain, percent, zone = values.plain(text).partition("%")
    try:
        old = ipaddress.ip_address(plain)
    except ValueError:
        old = ipaddress.ip_address("192.0.2.1")
    if isinstance(old, ipaddress.IPv4Address):
        net = "198.19" if not old.is_global or old.is_multicast else ("192.0.2", "198.51.100", "203.0.113", "198.18")[min(3, below(8))]
        new = ".".join([net, *(str(1 + below(254)) for _ in range(3 - net.count(".")))])
        return values.fit(values.shape(text)[0] * len(new), new, re.compile(r"(?s)."))
    groups = [int(group, 16) for group in old.exploded.split(":")]
    groups = [0x2001, 0xDB8, *(1 + below(0xFFFF) if group else 0 for group in groups[2:7]), 1 + below(0xFFFF)]
    new = ":".join(f"{group:x}" for group in groups)
    new = str(ipaddress.ip_address(new)) if "::" in plain else new
    return (new.upper() if plain.isupper() else new) + percent + zone


def is_address(text: str) -> bool:
    return V4.fullmatch(text) is not None or V6.match(text) is not None


def mac(text: str, below: Below) -> str:
    """A group address that is locally administered and begins with a letter: no device has it."""
    form = values.shape(text)
    new = values.some(below, "ABCDEF", 1) + values.some(below, "37BF", 1) + values.some(below, DIGITS + "ABCDEF", 10)
    return values.fit(form, new if any(map(str.isupper, form)) else new.lower(), values.ALNUM)


def wallet(text: str, below: Below) -> str:
    """Right checksums over a fixed beginning, which nobody has the private key to; of Ethereum's hexadecimal digits letters alone."""
    plain = "".join(values.plain(text).split())
    if plain[:2] in ("0x", "0X"):
        return plain[:2] + values.some(below, "abcdef", 40)
    if plain[:3].lower() == "bc1":
        return _bech32(plain, below)
    number = functools.reduce(lambda n, c: n * 58 + BASE58.index(c), plain[:1] + "ExampLeAddress" + values.some(below, BASE58, 19), 0)
    body = (number >> 32).to_bytes(21, "big")
    number = int.from_bytes(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4], "big")
    written = ""
    while number:
        number, digit = divmod(number, 58)
        written = BASE58[digit] + written
    return ("1" if plain[0] == "1" else "") + written


def _bech32(plain: str, below: Below) -> str:
    """BIP 173 and 350: 20 bytes are 32 characters and 32 bytes are 52, of which the last holds one bit."""
    size = 32 if len(plain) < 50 else 52
    data = plain[3].lower() + "exampleaddress" + values.some(below, BECH32, size - 15) + BECH32[below(32) if size == 32 else 16 * below(2)]
    state = 1
    for number in [3, 3, 0, 2, 3, *map(BECH32.index, data), 0, 0, 0, 0, 0, 0]:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ number
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> bit & 1 else 0
    state ^= 1 if data[0] == "q" else 0x2BC830A3
    new = "bc1" + data + "".join(BECH32[state >> 5 * (5 - place) & 31] for place in range(6))
    return new.upper() if plain.isupper() else new


def secret(text: str, below: Below) -> str:
    """The prefix and the length; letters alone, with EXAMPLE at the end, as the issuers' manuals have it."""
    if len(lines := BLOCK.split(text)) == 5:
        return lines[1] + secret(lines[2], below) + lines[3]
    form = values.shape(text)
    start = found.end() if (found := KEY.match(form)) else 0
    old = values.ALNUM.findall(form[start:])
    alphabet = UPPER if not any(map(str.islower, old)) else LOWER if not any(map(str.isupper, old)) else LOWER + UPPER
    filled = iter((values.some(below, alphabet, max(0, len(old) - 7)) + "EXAMPLE")[: len(old)])
    return form[:start] + values.ALNUM.sub(lambda _: next(filled), form[start:])


def is_secret(text: str) -> bool:
    text = BLOCK.sub("", text)
    body = "".join(values.ALNUM.findall(text[found.end() :] if (found := KEY.match(text)) else text))
    return body.endswith("EXAMPLE") and body.isalpha() and len(body) > 11
