"""Labelled personal data: values made at random with valid check digits, planted in real sentences, among what only looks like them.

No value is anybody's on purpose, and every secret is put together from pieces, so that scanners do not take this file for a leak.
A template is text with slots; a slot is `(entity, make)`, and its entity is None where a person who labels would mark nothing.
"""

import contextlib
import csv
import gzip
import hashlib
import ipaddress
import json
import random
import re
import string
import unicodedata
from datetime import date, timedelta
from functools import cache
from itertools import islice

import phonenumbers
import zstandard

from shared import ROOT, SHARED

DIGITS, UPPER, LOWER = string.digits, string.ascii_uppercase, string.ascii_lowercase
ALNUM, HEX = DIGITS + UPPER + LOWER, DIGITS + "abcdef"
USCC, BASE58 = "0123456789ABCDEFGHJKLMNPQRTUWXY", "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Districts of every province, two of the residence permits for Hong Kong and Taiwan, and some that were abolished since (their cards are valid).
REGIONS = re.findall(r"\d+", """110101 110105 110108 120104 130102 140105 150102 210102 220102 230102 310101 310104 310115 320102 320505 330106 330203 340104
    350102 350203 360102 370102 370202 410105 420106 430104 440103 440106 440305 450103 460105 500103 510104 510105 520102 530102 540102
    610113 620102 630102 640104 650102 810000 830000 512301 422301 362101 372801 342221""")
MOBILE = re.findall(r"\d+", "130 131 132 133 135 136 137 138 139 147 150 151 152 155 156 158 159 166 173 176 177 178 180 181 182 185 186 187 188 189 191 193 198 199")
FAMILY, GIVEN = "王李张刘陈杨赵黄周吴徐孙马朱胡林郭何高罗", "伟芳娜敏静强磊洋艳勇军杰娟涛明超霞平刚玲文华建国志海雪梅春红"
FIRST, LAST = ["James", "Mary", "Robert", "Linda", "Wei", "Anna", "Carlos", "Fatima", "Olga", "Kenji"], ["Smith", "Brown", "Garcia", "Chen", "Novak", "Rossi", "Kim", "Patel", "Berg", "Sato"]
WORDS = ["lin", "wang", "zhao", "chen", "sun", "green", "happy", "cloud", "river", "star", "book", "tea", "forest", "moon", "data", "note", "web", "dev", "fox", "panda"]
DOMAINS = re.findall(r"\S+", """qq.com 163.com 126.com sina.com gmail.com outlook.com foxmail.com aliyun.com mail.tsinghua.edu.cn cqcb.gov.cn huaxin-tech.com.cn
    139.com yeah.net pku.edu.cn nanyang.edu.sg company.io mail.ntu.edu.tw hku.hk""")
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
FULL = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})
# What may stand before a span: characters of two UTF-16 units, combining marks, an emoji that holds invisible characters.
TRAPS = ["𠮷野家🚗：", "e\u0301\u0301，", "👨\u200d👩\u200d👧 ", "Ａ\u0301 ", "𝒳𝒴 ", "\u3000\u3000", "①② ", "n\u0303o\u0308 "]


# --- values -----------------------------------------------------------------------------------------------------------------------------


def some(rng, alphabet, n):
    return "".join(rng.choices(alphabet, k=n))


def like(rng, pattern):
    """The pattern with # as any digit and % as one that is not 0."""
    return re.sub("[#%]", lambda found: rng.choice(DIGITS if found[0] == "#" else DIGITS[1:]), pattern)


def birthday(rng):
    return date(1945, 1, 1) + timedelta(days=rng.randrange(365 * 62))


def id_check(first):
    """Mod 11-2 of ISO 7064."""
    return "10X98765432"[sum(int(digit) * 2 ** (17 - n) for n, digit in enumerate(first)) % 11]


def id18(rng):
    first = rng.choice(REGIONS) + birthday(rng).strftime("%Y%m%d") + some(rng, DIGITS, 3)
    return first + id_check(first)


def id15(rng):
    """The form of before 1999: no century, no check digit."""
    return rng.choice(REGIONS[:40]) + (date(1945, 1, 1) + timedelta(days=rng.randrange(365 * 40))).strftime("%y%m%d") + some(rng, DIGITS, 3)


def uscc_check(first):
    """Mod 31 of GB 32100."""
    return USCC[-sum(USCC.index(c) * 3**n for n, c in enumerate(first)) % 31]


def uscc(rng):
    kind, letters = rng.choice([("91", USCC), ("91", DIGITS), ("92", USCC), ("12", DIGITS), ("51", USCC)])
    first = kind + rng.choice(REGIONS[:40]) + some(rng, letters, 9)
    value = first + uscc_check(first)
    return uscc(rng) if value.isdigit() and (luhn_ok(value) or id_check(value[:17]) == value[-1]) else value     # which of them it is, nobody could say


def luhn(digits):
    """The sum that is 0 mod 10 for a valid number."""
    return sum(sum(divmod(2 * int(d), 10)) if n % 2 else int(d) for n, d in enumerate(reversed(digits)))


def luhn_ok(digits):
    return luhn(digits) % 10 == 0


def with_luhn(first):
    return first + str(-luhn(first + "0") % 10)


def card(rng, english=False):
    starts = {19: ["622202", "621700", "622848", "621661", "436742"], 18: ["620058", "623058"], 17: ["620107", "620592"],
              16: ["622588", "621483", "622622", "625965", "4392", "5203", "3568", "4"]}
    if english:
        starts = {16: ["4", "4716", "51", "5425", "2221", "6011", "3530"], 15: ["34", "37"], 14: ["36", "305"]}
    size = rng.choice([16, 16, 16, 16, 16, 16, 15, 15, 14] if english else [19, 19, 18, 17, 16, 16, 16])
    start = rng.choice(starts[size])
    return with_luhn(start + some(rng, DIGITS, size - 1 - len(start)))


def grouped(value, sizes, glue):
    """The value cut into groups; the last size goes on to the end."""
    out, at = [], 0
    for size in sizes:
        out.append(value[at : at + size])
        at += size
    while at < len(value):
        out.append(value[at : at + sizes[-1]])
        at += sizes[-1]
    return glue.join(out)


def id_written(rng):
    value = id18(rng)
    if rng.random() < 0.6:
        return value.lower() if rng.random() < 0.3 else value
    return rng.choice([grouped(value, [4], " "), grouped(value, [4], "  "), grouped(value, [6, 8, 4], " "), grouped(value, [6, 8, 4], "-")])


def card_written(rng, english=False):
    value = card(rng, english)
    sizes = {15: [4, 6, 5], 14: [4, 6, 4]}.get(len(value), [4])
    return value if rng.random() < 0.55 else grouped(value, sizes, rng.choice([" ", " ", "  ", "-"]))


def phone(rng, *patterns, region=None):
    """A number after one of the patterns that libphonenumber takes for valid."""
    while True:
        value = like(rng, rng.choice(patterns))
        with contextlib.suppress(phonenumbers.NumberParseException):
            if phonenumbers.is_valid_number(phonenumbers.parse(value, region)):
                return value


def mobile(rng):
    value = rng.choice(MOBILE) + some(rng, DIGITS, 8)
    value = value if rng.random() < 0.55 else grouped(value, [3, 4, 4] if rng.random() < 0.9 else [3, 3, 5], rng.choice(" -"))
    return rng.choice(["", "", "", "+86", "+86 ", "+86-", "0086", "0086-"]) + value


def mobile_plain(rng):
    return "".join(c for c in mobile(rng) if c.isdigit())[-11:]


def landline(rng):
    area = rng.choice(["010", "021", "022", "020", "0755", "0571", "0531", "0371", "0731", "027", "028", "029", "0512"])
    rest = phone(rng, area + "6#######", area + "8#######", area + "5#######", region="CN")[len(area) :]
    rest = rest if rng.random() < 0.7 else rest[:4] + rng.choice(" -") + rest[4:]
    return rng.choice([f"{area}-{rest}", f"{area}-{rest}", f"({area}){rest}", f"（{area}）{rest}", f"{area} {rest}", f"+86 {area[1:]} {rest}", f"+86-{area[1:]}-{rest}"])


def phone_hk(rng):
    return phone(rng, "+852 9### ####", "+852-6###-####", "+8525#######", "+852 2### ####", "00852-9#######", "+852 3#######", region="CN")


def phone_hk_local(rng):
    return phone(rng, "9### ####", "2### ####", "6#######", "3###-####", region="HK")


def phone_tw(rng):
    return phone(rng, "+886 9## ### ###", "+886-9##-###-###", "+8869########", "09##-###-###", "09## ### ###", "02-2###-####", "(02)2###-####", "+886 2 2### ####", "04-2###-####", region="TW")


def phone_abroad(rng):
    return phone(rng, "+1 415-%##-####", "+1 (212) %##-####", "+1212%######", "+44 20 7### ####", "+44 7### ######", "+81 90-####-####", "+81-3-####-####", "+82 10-####-####",
                 "+65 9### ####", "+49 30 ########", "+33 6 ## ## ## ##", "+61 4## ### ###", "+853 6### ####", "+60 12-### ####", "+66 8# ### ####", "+7 9## ###-##-##")


def phone_us(rng):
    area, middle, last = rng.choice(["212", "415", "312", "617", "206", "713", "646"]), like(rng, rng.choice("2346789") + "%") + rng.choice("03456789"), like(rng, "####")
    return rng.choice([f"({area}) {middle}-{last}", f"{area}-{middle}-{last}", f"{area}-{middle}-{last}", f"{area}.{middle}.{last}", f"+1-{area}-{middle}-{last}", f"+1 ({area}) {middle}-{last}"])


def email(rng):
    local = rng.choice([rng.choice(WORDS), rng.choice(WORDS) + rng.choice("._-") + rng.choice(WORDS), rng.choice(WORDS) + some(rng, DIGITS, 3), some(rng, DIGITS[1:], 8)])
    return local + "@" + rng.choice(DOMAINS)


def email_written(rng):
    value, how = email(rng), rng.random()
    if how < 0.12:
        return value.replace("@", "＠")
    if how < 0.22:
        return value.replace("@", rng.choice(["&#64;", "&#x40;"]))
    return value.upper() if how < 0.27 else value


def ipv4(rng):
    while True:
        value = ipaddress.ip_address(".".join(str(rng.randint(1, 254)) for _ in range(4)))
        if value.is_global and 20 < value.packed[0] < 224:      # smaller numbers look like versions
            return str(value)


def ipv4_private(rng):
    a, b = rng.randint(0, 254), rng.randint(1, 254)
    return rng.choice([f"192.168.{a}.{b}", f"10.{b}.{a}.{b}", f"172.{rng.randint(16, 31)}.{a}.{b}", "127.0.0.1", f"169.254.{a}.{b}"])


def ipv6(rng):
    def group():
        return some(rng, HEX[1:], 1) + some(rng, HEX, 3)

    return rng.choice([f"2408:84{some(rng, HEX, 2)}:{group()}:{group()}:{group()}:{group()}:{group()}:{group()}", f"240e:{group()}:{group()}::{group()}", f"2001:da8:{group()}::{rng.randint(1, 9)}"])


def ipv6_private(rng):
    return rng.choice([f"fe80::{some(rng, HEX[1:], 4)}:{some(rng, HEX[1:], 2)}ff:fe{some(rng, HEX, 2)}:{some(rng, HEX[1:], 4)}", f"fd{some(rng, HEX, 2)}:{some(rng, HEX[1:], 4)}::{some(rng, HEX[1:], 3)}"])


def credentials(rng):
    return rng.choice(["admin", "root", "deploy", rng.choice(WORDS)]) + ":" + some(rng, ALNUM, 5) + rng.choice(["", "!", "_", "-", "%40"]) + some(rng, ALNUM, 4)


def plate(rng):
    place, letters = rng.choice("京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼") + rng.choice("ABCDEFGH"), "ABCDEFGHJKLMNPQRSTUVWXYZ"
    number = rng.choice([like(rng, "#####"), rng.choice(letters) + like(rng, "####"), like(rng, "###") + some(rng, letters, 2), like(rng, "####") + rng.choice(letters)])
    if rng.random() < 0.3:      # new energy: D or F and five digits, or five digits and D or F
        number = rng.choice([rng.choice("DF") + like(rng, "#####"), rng.choice("DF") + rng.choice(letters) + like(rng, "####"), like(rng, "#####") + rng.choice("DF")])
    elif rng.random() < 0.1:
        number = like(rng, "####") + rng.choice("学警挂")
    return place + rng.choice(["", "", "", "·", "•", " ", "-"]) + number


def qq(rng):
    return rng.choice("123456789") + some(rng, DIGITS, rng.randint(5, 9))


def wechat(rng):
    return rng.choice([rng.choice(WORDS) + "_" + some(rng, DIGITS, 4), "wxid_" + some(rng, DIGITS + LOWER, 14), rng.choice(WORDS) + rng.choice(WORDS) + some(rng, DIGITS, 2), rng.choice(WORDS).title() + "-" + some(rng, DIGITS, 6)])


def passport(rng):
    return rng.choice(["E", "G", "E", "E" + rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ"), rng.choice(["PE", "SE", "DE"])]).ljust(9, "#").replace("#", "{}").format(*some(rng, DIGITS, 8))


def permit(rng):
    return rng.choice(["C########", "C" + rng.choice("ABCDEF") + "#######", "W########", "L########", "T########"]).replace("#", "{}").format(*some(rng, DIGITS, 8))


def permit_home(rng):
    return rng.choice("HM") + some(rng, DIGITS, rng.choice([8, 10]))


def iban(rng):
    country, body = rng.choice([("DE", "#" * 18), ("GB", some(rng, UPPER, 4) + "#" * 14), ("AT", "#" * 16), ("NL", some(rng, UPPER, 4) + "#" * 10), ("CH", "#" * 17), ("AE", "#" * 19)])
    body = like(rng, body)
    value = country + f"{98 - int(''.join(str(int(c, 36)) for c in body + country + '00')) % 97:02d}" + body
    return value if rng.random() < 0.6 else grouped(value, [4], " ")


def mac(rng):
    parts = [some(rng, HEX, 1) + rng.choice("02468ace"), *(some(rng, HEX, 2) for _ in range(5))]       # odd: a group of devices
    return rng.choice([":".join(parts), ":".join(parts).upper(), "-".join(parts).upper(), ":".join(parts)])


def base58check(payload):
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = BASE58[rest] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def bech32(data):
    """A version 0 witness program of 5-bit values with its checksum (BIP 173)."""
    charset, values = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", [0, *data]
    check = 1
    for value in [3, 3, 0, 2, 3, *values, 0, 0, 0, 0, 0, 0]:        # 3 3 0 2 3 is "bc" unfolded
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            check ^= generator if top >> bit & 1 else 0
    check ^= 1
    return "bc1" + "".join(charset[v] for v in values + [check >> 5 * (5 - n) & 31 for n in range(6)])


def wallet(rng):
    twenty = rng.randbytes(20)
    bits = int.from_bytes(twenty, "big")
    return rng.choice([base58check(b"\0" + twenty), base58check(b"\5" + twenty), base58check(b"\x41" + twenty), "0x" + twenty.hex(), bech32([bits >> 5 * (31 - n) & 31 for n in range(32)])])


def secret(rng):
    return rng.choice([
        "s" + "k-" + some(rng, ALNUM, 48), "s" + "k-proj-" + some(rng, ALNUM, 20) + "_" + some(rng, ALNUM, 30) + "-" + some(rng, ALNUM, 20), "s" + "k-" + some(rng, HEX, 32), "AK" + "IA" + some(rng, UPPER + "234567", 16),
        "gh" + "p_" + some(rng, ALNUM, 36), "xo" + "xb-" + some(rng, DIGITS, 12) + "-" + some(rng, DIGITS, 12) + "-" + some(rng, ALNUM, 24), "AI" + "za" + some(rng, ALNUM + "_-", 34) + rng.choice(ALNUM),
        "h" + "f_" + some(rng, ALNUM, 34), "gl" + "pat-" + some(rng, ALNUM, 20), "s" + "k_live_" + some(rng, ALNUM, 24), "LT" + "AI5t" + some(rng, ALNUM, 18)])


def gps(rng):
    lat, lon = rng.uniform(18, 53), rng.uniform(75, 134)
    minutes = [f"{rng.randint(0, 59):02d}" for _ in range(4)]
    return rng.choice([
        f"{lat:.6f},{lon:.6f}", f"{lat:.6f}, {lon:.6f}", f"{lon:.6f},{lat:.6f}", f"{lat:.4f}°N, {lon:.4f}°E", f"北纬{lat:.4f}°，东经{lon:.4f}°", f"东经{lon:.4f}度、北纬{lat:.4f}度",
        f"东经{lon:.0f}°{minutes[0]}′{minutes[1]}″，北纬{lat:.0f}°{minutes[2]}′{minutes[3]}″", f"{lat:.0f}°{minutes[0]}′{minutes[1]}″N, {lon:.0f}°{minutes[2]}′{minutes[3]}″E", f"N{lat:.0f}°{minutes[0]}'{minutes[1]}\" E{lon:.0f}°{minutes[2]}'{minutes[3]}\""])


def gps_west(rng):
    lat, lon = rng.uniform(25, 60), rng.uniform(-124, -2)
    return rng.choice([f"{lat:.6f}, {lon:.6f}", f"{lat:.5f},{lon:.5f}", f"{lat:.4f}° N, {-lon:.4f}° W", f"{lat:.0f}°{rng.randint(10, 59)}'{rng.randint(10, 59)}\"N {-lon:.0f}°{rng.randint(10, 59)}'{rng.randint(10, 59)}\"W"])


def born(rng):
    day = birthday(rng)
    return rng.choice([f"{day.year}年{day.month}月{day.day}日", f"{day.year}年{day.month}月{day.day}日", f"{day:%Y年%m月%d日}", f"{day:%Y-%m-%d}", f"{day.year}/{day.month}/{day.day}", f"{day:%Y.%m.%d}", f"{day:%Y%m%d}", f"{day.year}年{day.month}月"])


def born_en(rng):
    day = birthday(rng)
    return rng.choice([f"{day:%m/%d/%Y}", f"{day:%Y-%m-%d}", f"{day:%B} {day.day}, {day.year}", f"{day.day} {day:%B} {day.year}", f"{day.day} {day:%b} {day.year}", f"{day:%d.%m.%Y}"])


def ssn(rng):
    return f"{rng.choice([*range(1, 666), *range(667, 900)]):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


# --- what only looks like a value -------------------------------------------------------------------------------------------------------


def broken(make):
    """The same value with another last digit or letter, still of the same form, and nothing else that is valid by chance."""
    def wrong(rng):
        while True:
            value = make(rng)
            last = rng.choice([c for c in (DIGITS if value[-1].isdigit() or value[-1] in "Xx" else BASE58[9:33] if value[-1].isupper() else BASE58[33:]) if c != value[-1]])
            digits = re.sub(r"[ -]", "", value[:-1] + last)
            if not digits.isdigit() or not luhn_ok(digits) and uscc_check(digits[:17]) != last:
                return value[:-1] + last
    return wrong


def wallet_checked(rng):
    return base58check(rng.choice([b"\0", b"\5", b"\x41"]) + rng.randbytes(20))


def isbn(rng):
    first = "9787" + some(rng, DIGITS, 8)
    value = first + str(-sum(int(d) * (3 if n % 2 else 1) for n, d in enumerate(first)) % 10)
    return rng.choice([value, grouped(value, [3, 1, 3, 5, 1], "-"), "978-7-" + value[4:7] + "-" + value[7:12] + "-" + value[12]])


def order(rng):
    day = date(2019, 1, 1) + timedelta(days=rng.randrange(2000))
    return rng.choice([f"{day:%Y%m%d}" + some(rng, DIGITS, rng.randint(6, 12)), some(rng, DIGITS[1:], 16), some(rng, DIGITS[1:], 18), like(rng, "%" + "#" * 18), "DD" + some(rng, DIGITS, 16)])


def parcel(rng):
    return rng.choice(["SF1############", "YT%############", "JDVA###########", "7%############", "EA#########CN", "43###########"]).replace("#", "{}").replace("%", "4").format(*some(rng, DIGITS, 14))


def version(rng):
    return rng.choice([like(rng, "%.#.%.#"), like(rng, "v%#.%.#.%"), like(rng, "V%.%.#.%#"), like(rng, "%.%.#"), "10.0.19045." + like(rng, "3###"), "120.0." + like(rng, "60##.%##")])


def stamp(rng):
    day = date(2012, 1, 1) + timedelta(days=rng.randrange(4500))
    return rng.choice([f"{day:%Y%m%d}" + like(rng, "1%35##"), like(rng, "1[4-6]########").replace("[4-6]", rng.choice("456")), like(rng, "16###########"), f"{day:%Y-%m-%d} 14:3" + like(rng, "#:2#.###"), f"{day:%Y年%m月%d日}09:30:1" + like(rng, "#")])


def digest(rng):
    four = [some(rng, HEX, n) for n in (8, 4, 4, 4, 12)]
    return rng.choice([some(rng, HEX, 32), some(rng, HEX, 40), some(rng, HEX, 64), "-".join(four), "0x" + some(rng, HEX, 64), "sha256:" + some(rng, HEX, 64)])


def cas(rng):
    first = like(rng, rng.choice(["%#", "%###", "%####"])) + like(rng, "##")
    return f"{first[:-2]}-{first[-2:]}-{sum(int(d) * n for n, d in enumerate(reversed(first), 1)) % 10}"


def figures(rng):
    """Rows of a statistical table, its figures about as long as telephone numbers; a series often keeps its first digit."""
    head = rng.choice(["年份\t进出口总额（元）\t财政收入（元）", "地区\t生产总值（元）\t固定资产投资（元）"])
    first = range(2015, 2015 + rng.randint(3, 6)) if head.startswith("年") else rng.sample(["北京", "天津", "河北", "山西", "辽宁", "江苏"], 4)
    columns = [rng.choice(["1%#########", "1%#########", "%##########", "%#########", "%###########"]) for _ in range(2)]
    return head + "".join(f"\n{name}\t" + "\t".join(like(rng, column) for column in columns) for name in first) + "\n"


def years(rng):
    start = rng.randint(1950, 2010)
    return rng.choice([" ".join(str(start + n) for n in range(rng.randint(4, 8))), " ".join(like(rng, "%###") for _ in range(rng.randint(4, 8)))])


SLOTS = {
    "id": ("ID_CARD_CN", id_written), "id15": ("ID_CARD_CN", id15), "uscc": ("CREDIT_CODE_CN", uscc), "card": ("CREDIT_CARD", card_written), "mobile": ("PHONE_CN", mobile), "landline": ("PHONE_CN", landline),
    "hk": ("PHONE_HK", phone_hk), "hk_local": ("PHONE_HK", phone_hk_local), "tw": ("PHONE_TW", phone_tw), "abroad": ("PHONE_NUMBER", phone_abroad), "us": ("PHONE_NUMBER", phone_us), "email": ("EMAIL_ADDRESS", email_written),
    "ip": ("IP_ADDRESS", ipv4), "ip6": ("IP_ADDRESS", ipv6), "lan": ("IP_PRIVATE", ipv4_private), "lan6": ("IP_PRIVATE", ipv6_private), "login": ("URL_CREDENTIALS", credentials), "plate": ("PLATE_CN", plate), "qq": ("QQ", qq), "wechat": ("WECHAT", wechat),
    "passport": ("PASSPORT", passport), "permit": ("TRAVEL_PERMIT_CN", permit), "home": ("TRAVEL_PERMIT_CN", permit_home), "taiwan": ("TRAVEL_PERMIT_CN", lambda rng: some(rng, DIGITS, 8)), "iban": ("IBAN_CODE", iban), "mac": ("MAC_ADDRESS", mac),
    "wallet": ("CRYPTO", wallet), "key": ("API_KEY", secret), "gps": ("GPS_COORDINATES", gps), "gps_west": ("GPS_COORDINATES", gps_west), "born": ("DATE_OF_BIRTH", born), "born_en": ("DATE_OF_BIRTH", born_en), "ssn": ("US_SSN", ssn),
    "card_en": ("CREDIT_CARD", lambda rng: card_written(rng, True)), "passport_us": ("PASSPORT", lambda rng: some(rng, DIGITS[1:], 9)),
    # plain forms for the columns of a table
    "id18": ("ID_CARD_CN", id18), "mobile11": ("PHONE_CN", mobile_plain), "mobile86": ("PHONE_CN", lambda rng: "+86 " + mobile_plain(rng)), "card16": ("CREDIT_CARD", card), "mail": ("EMAIL_ADDRESS", email), "card16_en": ("CREDIT_CARD", lambda rng: card(rng, True)),
    # not personal data
    "bad_id": (None, broken(id_written)), "bad_card": (None, broken(card_written)), "bad_uscc": (None, broken(uscc)), "bad_iban": (None, broken(iban)), "bad_wallet": (None, broken(wallet_checked)), "isbn": (None, isbn), "order": (None, order), "parcel": (None, parcel),
    "version": (None, version), "stamp": (None, stamp), "digest": (None, digest), "cas": (None, cas), "figures": (None, figures), "years": (None, years), "n": (None, lambda rng: like(rng, "%#")), "nnn": (None, lambda rng: like(rng, "%##")),
    "serial": (None, card), "n6": (None, lambda rng: like(rng, "%#####")), "n8": (None, lambda rng: like(rng, "20######")), "n11": (None, lambda rng: like(rng, "1") + rng.choice("3589") + like(rng, "#########")), "n13": (None, lambda rng: like(rng, "69###########")), "word": (None, lambda rng: rng.choice(WORDS)),
    "day_en": (None, born_en), "name": (None, lambda rng: rng.choice(FAMILY) + some(rng, GIVEN, rng.randint(1, 2))), "who": (None, lambda rng: f"{rng.choice(FIRST)} {rng.choice(LAST)}"), "day": (None, lambda rng: f"{rng.randint(1990, 2024)}年{rng.randint(1, 12)}月{rng.randint(1, 28)}日"),
}
# Which disguise a value may wear. A line break stands only inside what a check digit holds together.
NUMBERS = {"id", "card", "uscc", "card_en"}
DISGUISES = {slot: ["full", "invisible", "break"] for slot in NUMBERS} | {slot: ["full", "invisible"] for slot in ("mobile", "landline", "email", "hk", "tw", "abroad", "id15")} | {
    "ip": ["full"], "qq": ["full"], "born": ["full"], "passport": ["full"], "permit": ["full"], "plate": ["full"], "iban": ["break", "invisible"]}

ZH = """
本人{name}，身份证号{id}，特此声明。|公民身份号码：{id}|被告人{name}，居民身份证号码{id}，现羁押于看守所。|（身份证：{id}）|身份证{id}和{id}两人同行|{name}{id}
旧身份证号：{id15}|持15位身份证（号码{id15}）的居民应当换领。|身份证号码为{id15}
统一社会信用代码：{uscc}|纳税人识别号{uscc}，开户行中国银行|甲方：华信科技有限公司（{uscc}）|社会信用代码{uscc}的企业
银行卡号：{card}|请汇款至账号{card}，户名{name}|卡号{card}已挂失|工资卡 {card} 开户行建设银行|信用卡{card}与储蓄卡{card}均可|收款账户（{card}）
手机：{mobile}|联系电话{mobile}|请拨打{mobile}与{name}联系|{name}{mobile}|电话（{mobile}）|两个手机号{mobile}和{mobile}|微信同号：{mobile}|手机号是{mobile}，随时可打|联系人{name}，{mobile}
电话：{landline}|传真{landline}|办公室电话 {landline}，邮编100084|举报电话：{landline}；{landline}
香港电话：{hk_local}|香港办事处{hk}|致电{hk}查询|WhatsApp：{hk}
手機：{tw}|聯絡電話{tw}|台灣分公司電話：{tw}|請撥{tw}洽詢
海外联系电话：{abroad}|海外热线{abroad}|可致电{abroad}|Tel: {abroad}
邮箱{email}|电子邮件：{email}|请发送至{email}，逾期不候|邮箱{email}和电话{mobile}|E-mail：{email}。|（{email}）|抄送{email}、{email}|邮箱是{email}哦|联系我们：{email}或{mobile}
登录IP：{ip}|来自{ip}的访问|服务器地址{ip}:8080已下线|用户于14:30:25从{ip}登录|http://{ip}/index.html|IP地址为{ip6}|IPv6：{ip6}，延迟20ms
内网地址{lan}|网关为{lan}|请访问http://{lan}:8080/登录|打印机IP：{lan6}|本机地址{lan}
克隆地址https://{login}@git.huaxin-tech.com.cn/app.git|数据库连接串 mysql://{login}@{lan}:3306/crm|镜像源：http://{login}@mirrors.example.com/pypi
车牌号{plate}|一辆车牌为{plate}的小轿车|{plate}违章停车|车辆（{plate}）|肇事车{plate}逃逸|号牌号码：{plate}
QQ：{qq}|QQ号{qq}|加QQ {qq} 咨询|扣扣：{qq}|联系QQ:{qq}|客服QQ：{qq}，电话{mobile}
微信：{wechat}|微信号{wechat}|加微信 {wechat} 领取资料|wechat: {wechat}|VX：{wechat}|微信号：{wechat}，QQ：{qq}
护照号码：{passport}|护照号{passport}|持护照（号码：{passport}）入境|护照 {passport} 已过期
往来港澳通行证{permit}|通行证号码：{permit}|港澳居民来往内地通行证 {home}|回乡证号：{home}|台胞证号{taiwan}|台湾居民来往大陆通行证号码：{taiwan}
国际汇款账号IBAN：{iban}|收款行IBAN {iban}，SWIFT见附件|账户{iban}
MAC地址：{mac}|网卡{mac}已绑定|设备（{mac}）离线|物理地址 {mac}
钱包地址：{wallet}|请转账至{wallet}|收款地址{wallet}已确认|USDT地址 {wallet}
密钥：{key}|api_key = "{key}"|令牌{key}已泄露|export TOKEN={key}|Authorization: Bearer {key}|请把{key}填入配置
坐标：{gps}|位于{gps}处|经纬度（{gps}）|定位{gps}|GPS: {gps}
出生日期：{born}|生于{born}，汉族|{name}，男，出生于{born}，大学文化|生日：{born}|出生年月：{born}
姓名：{name} 手机：{mobile} 身份证：{id} 银行卡：{card}|{name}，{mobile}，{email}，{id}|电话:{mobile},QQ:{qq},微信:{wechat},邮箱:{email}|申请人{name}（身份证号{id}，电话{mobile}）驾驶{plate}|护照{passport}，出生日期{born}，电话{mobile}
"""
ZH_NOT = """
身份证号{bad_id}有误|证件号码：{bad_id}|银行卡{bad_card}校验失败|卡号{bad_card}|统一社会信用代码{bad_uscc}不存在|IBAN {bad_iban} 无效|钱包地址{bad_wallet}格式错误
ISBN {isbn}|书号：{isbn}，定价{n}.00元|国际标准书号{isbn}|ISSN 1000-{n}25|DOI:10.{n6}/j.cnki.jos.{n6}|https://doi.org/10.1016/j.cell.2020.{n}.{nnn}
订单号：{order}|订单编号{order}已发货|运单号{parcel}|快递单号：{parcel}，请查收|流水号{order}|交易单号 {order}|商品条码{n13}|合同编号HT-{n8}-{nnn}|发票号码：{n8}
版本{version}|升级到{version}后修复|固件版本：{version}|当前版本号 {version}，请更新|见本规范3.2.{n}.1节|微信{version}发布|QQ {version} 正式版|Chrome/{version}
国发〔2019〕{n}号|根据第一百二十三条第{n}款|（2021）京0105民初{nnn}45号|GB/T 222{n}-2019|京ICP备{n8}号-1|京公网安备 1101050203{n}{n}号|国药准字H{n8}|国药准字Z{n8}|食品生产许可证编号SC1{nnn}1{n6}{nnn}|粤卫消证字（2020）第{n6}号
发布日期：{day}|自{day}起施行|成立于{day}|生产日期：{day}|会议于{day}14:30:25召开|时间戳{stamp}|创建时间：{stamp}|日志时间 {stamp}|片长01:23:{n}
总额{n11}元|人民币{n11}.00元|共计￥{n},{nnn},{nnn},{nnn}.00|访问量{n11}次|x²+{nnn}x-{n6}=0|π≈3.14159265358979|E=mc²，c=299792458m/s|容量{n11}字节|h = x@W.sum(0)|CIE色坐标为0.3127, 0.3290|尺寸 39.{n}×116.{n} mm
{figures}|历年数据：{years}|{years}|双色球 03 08 15 22 27 31 + 07|大乐透第{n}{nnn}期：05 12 19 28 33 + 02 11|中奖号码 {years}
文件校验值{digest}|SHA1：{digest}|commit {digest}|会话ID {digest}|颜色#1a2b3c与#FFEEDD|std::vector<int>与a::before|交易哈希{digest}
邮编{n6}|邮政编码：{n6}|请拨打12345热线|报警请拨110，急救120|客服热线400-820-{n}{n}|银行客服95588|购票请拨12306|全国统一热线800-810-{n}{n}
贵州茅台（600519.SH）上涨{n}%|股票代码000001|腾讯控股00700.HK|CAS号{cas}|水的CAS登记号为7732-18-5|京A股上市|沪B股指数|G{n}次列车|型号E{n8}|零件号G{n8}缺货|QQ音乐与QQ空间|微信支付和微信公众平台|加微信领取资料|护照和签证的办理|产品编号A{serial}
npm包react@18.2.0|lodash@4.17.{n}|@张三 你好|pip install sk-learn-contrib-extended|api_key = "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"|组织机构代码：71093{nnn}-X|学号20190{n6}|工号{n6}|准考证号已打印|地址：北京市海淀区中关村大街{n}号{nnn}室
"""
EN = """
My card number is {card_en}.|Please charge {card_en} today|credit card: {card_en}|Payment by card {card_en} was declined, use {card_en}
Call me at {us}.|Phone: {us}|You can reach {who} on {us} or {abroad}|Tel. {us} / Fax {us}|Our office abroad: {abroad}|His mobile is {abroad}, ring after six|Shenzhen office: {hk}|Beijing mobile {mobile86}
Write to {email}.|e-mail {email}|contact: {email}, {us}|<{email}>|Send it to {email} and {email}
The request came from {ip}.|Server {ip}:443 is down|blocked {ip6} for an hour|Gateway: {lan}|see http://{lan}:8080/admin|link-local {lan6}
git clone https://{login}@git.company.io/app.git|postgres://{login}@{lan}:5432/crm
SSN: {ssn}|Her social security number is {ssn}.|SSN {ssn}, DOB {born_en}
IBAN: {iban}|Transfer to {iban}, please|account {iban}
MAC address {mac}|the card {mac} was seen|passport number {passport_us}|Passport No. {passport_us}, date of birth: {born_en}|passport {passport}
Send it to {wallet}|wallet: {wallet}|API key: {key}|token={key}|OPENAI_API_KEY={key}|Bearer {key}
DOB: {born_en}|She was born on {born_en} in Leeds|Date of birth {born_en}|birthday: {born_en}
GPS: {gps_west}|coordinates {gps_west}|located at {gps_west}
Name: {who}, phone: {us}, e-mail: {mail}, card: {card_en}|{who} <{mail}> {us}
"""
EN_NOT = """
card {bad_card} was refused|IBAN {bad_iban} is not valid|wallet {bad_wallet} fails its checksum|SSN 000-12-{n}34|SSN 666-45-{n}12
ISBN {isbn}|ISBN-13: {isbn}|DOI 10.{n6}/s{n6}-020-{nnn}|ISSN 1000-98{n}|order number {order}|Order #{order}|tracking {parcel}|1Z999AA1{n8}{n}|invoice {n8}-{n6}
version {version}|upgrade to {version} first|v{version}|section 3.2.{n}.1|Chrome/{version}|RFC 7231, section 6.{n}.1
published {day_en}|on March {n}, 2019|timestamp {stamp}|14:30:25|at 01:23:{n}|$1,{nnn},{nnn}.00|{n11} yuan in total|x^2 + {nnn}x - {n6} = 0|h = x@W.sum(0)|x,y = 0.3127, 0.3290
values {years}|{years}|commit {digest}|session {digest}|sha {digest}|color #1a2b3c|std::vector<int>|a::before|ZIP 94105-{n}34|call 911|dial 112
react@18.2.0|CAS {cas}|part E{n8}|model G{n8}|room {nnn}|pp. {nnn}-{nnn}|H.R. {n}{n}|ISO 9001:2015|ORCID: 0000-0002-1825-00{n}|{n} U.S.C. {nnn}{n}|pip install sk-learn-contrib-extended
"""


def templates(block):
    """[[template]] by line: what stands on a line is of one kind, and a corpus takes the lines in turn."""
    return [line.split("|") for line in block.strip().split("\n")]


# --- documents --------------------------------------------------------------------------------------------------------------------------


def disguised(rng, value, kind):
    """The value as people, editors and converters write it."""
    if kind == "full":
        return value.translate(FULL) if rng.random() < 0.5 else re.sub(r"\d", lambda d: d[0].translate(FULL), value)
    if kind == "invisible":
        for _ in range(rng.randint(1, 2)):
            at = rng.choice([n for n in range(1, len(value)) if "&" not in value or value[n - 1].isalnum() and n < value.index("&")] or [1])
            value = value[:at] + rng.choice(INVISIBLE) + value[at:]
        return value
    gaps = list(re.finditer(" +|-", value))
    if gaps:                                        # a grouped number breaks between its groups, and a dash stays
        gap = rng.choice(gaps)
        return value[: gap.start()] + gap[0].strip() + "\n" + value[gap.end() :]
    at = rng.randint(4, len(value) - 4)
    return value[:at] + rng.choice(["\n", "\n", "\r\n"]) + value[at:]


def filled(rng, template, plain=False):
    """(text, spans) of a template; 4 of 10 values that may be disguised are, unless `plain`."""
    text, spans = "", []
    for n, piece in enumerate(re.split(r"\{(\w+)\}", template)):
        if n % 2 == 0:
            text += piece
            continue
        entity, make = SLOTS[piece]
        value = make(rng)
        if entity and not plain and piece in DISGUISES and rng.random() < 0.4:
            value = disguised(rng, value, rng.choice(DISGUISES[piece]) if "&" not in value else "invisible")
        if entity:
            spans.append((entity, len(text), len(text) + len(value)))
        text += value
    return text, spans


def joined(parts, gap=""):
    """One (text, spans) of several, with the gap where two letters or digits would meet."""
    text, spans = "", []
    for part, marks in parts:
        if text and part and all(c.isalnum() and ord(unicodedata.normalize("NFKC", c)[0]) < 128 for c in (text[-1], part[0])):
            text += gap
        spans += [(entity, start + len(text), end + len(text)) for entity, start, end in marks]
        text += part
    return text, spans


@cache
def sentences(language):
    """Real sentences without anything that a person would label, from tests/data and, where it is there, from shared/data."""
    sample, texts = ROOT / "tests/data/sample", []
    if language == "zh":
        with gzip.open(sample / "zh_web.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["content"] for line in lines if line.startswith('{"url": "law/')]
        tw = zstandard.ZstdDecompressor().stream_reader((sample / "tw_law.jsonl.zst").read_bytes()).read().decode()
        texts += [json.loads(line)["content"] for line in tw.split("\n") if line]
        texts += [page.read_text(encoding="utf-8") for page in sorted((sample / "docs").glob("*.md"))]
        more = ["raw_zh_law/prc_laws.jsonl.gz", "raw_zh_cc/c4zh_duplicated_lines.jsonl.gz", "raw_zh_wiki/cmrc2018_contexts.jsonl.gz"]
    else:
        with open(sample / "en_web.csv", encoding="utf-8", newline="") as file:
            texts += [row["content"] for row in csv.DictReader(file)]
        more = ["raw_en_web/c4_sample.jsonl.gz", "raw_tw_law/roc_laws_en.jsonl.gz"]
    for path in more:
        if (SHARED / "data" / path).exists():
            with gzip.open(SHARED / "data" / path, "rt", encoding="utf-8") as lines:
                texts += [json.loads(line)["text"] for line in islice(lines, 200)]
    ends = re.compile(r"(?<=[。！？；])|\n" if language == "zh" else r"(?<=[.!?]) +|\n")
    marked = re.compile(r"\d{5}|\d[-. ]\d{3,}|[@＠°&#:：<{`|]|//|QQ|微信|生于|出生|护照|身份证|车牌|[Pp]assport|[Bb]orn|birth|[Pp]hone|[Cc]all")
    low, high = (15, 120) if language == "zh" else (40, 240)
    return sorted({piece.strip() for text in texts for piece in ends.split(text) if low <= len(piece) <= high and not marked.search(piece)})


TABLES = {
    "zh": [("姓名,手机,身份证号,银行卡号\n", "{name},{mobile11},{id18},{card16}\n"), ("姓名\t电话\t邮箱\n", "{name}\t{mobile11}\t{mail}\n"), ("| 姓名 | 手机号 | 车牌 | 积分 |\n", "| {name} | {mobile11} | {plate} | {n6} |\n"),
           ("序号 姓名 身份证号 手机号\n", "{n} {name} {id18} {mobile11}\n")],
    "en": [("name,phone,email,card\n", "{who},{us},{mail},{card16_en}\n"), ("Name\tSSN\tE-mail\n", "{who}\t{ssn}\t{mail}\n"), ("| name | ip | mail |\n", "| {who} | {ip} | {mail} |\n")],
}


def table(rng, language, rows):
    """A table of customers; its columns are plain, and one row never runs into the next."""
    head, row = rng.choice(TABLES[language])
    return joined([(head, []), *(filled(rng, row, plain=True) for _ in range(rows))])


def document(rng, language, yes, no):
    """Real sentences around what is planted: on a line of its own, glued to the text, or in brackets within a sentence."""
    around, chinese = sentences(language), language == "zh"
    stop, glue, gap = (rng.choice(["。", "，", "；", "\n", ""]), "", "，") if chinese else (rng.choice([" ", "\n", "; "]), " ", ", ")
    planted = list(yes)
    if no:
        planted.insert(rng.randint(0, len(planted)), no)
    before, after = rng.choice(around), rng.choice(around)
    if rng.random() < 0.2:
        half = len(before) // 2
        cut = next((n + 1 for n in range(half, len(before)) if before[n] in "，、, "), len(before))
        parts = [piece for part in planted for piece in (("；" if chinese else "; ", []), part)][1:]
        open_, close = rng.choice(["（）", "()"]) if chinese else "()"
        return joined([(before[:cut] + open_, []), *parts, (close + before[cut:], []), (glue, []), (after, [])], gap)
    start = rng.choice(TRAPS) if rng.random() < 0.25 else ""
    parts = [piece for part in planted for piece in (part, (stop, []))]
    return joined([(before, []), (rng.choice([glue, "\n"]), []), (start, []), *parts, (rng.choice([glue, "\n"]), []), (after, [])], gap)


def corpus(language, seed, n, blocks):
    rng, kinds, lures = random.Random(f"{language} {seed}"), templates(blocks[0]), templates(blocks[1])
    documents = []
    for k in range(n):
        no = filled(rng, rng.choice(lures[k % len(lures)])) if k % 8 == 7 or rng.random() < 0.4 else None
        if k % 25 == 24:
            documents.append(joined([table(rng, language, rng.randint(2, 6)), (rng.choice(sentences(language)), [])]))
        elif k % 8 == 7:
            documents.append(document(rng, language, [], no))
        else:
            chosen = [kinds[k % len(kinds)]] + ([rng.choice(kinds)] if rng.random() < 0.25 else [])
            documents.append(document(rng, language, [filled(rng, rng.choice(line)) for line in chosen], no))
    return documents


def chinese(seed=4, n=600):
    """[(text, [(entity, start, end)])]: n Chinese documents, seven of eight with a label; positions are code points, in order."""
    return corpus("zh", seed, n, (ZH, ZH_NOT))


def english(seed=4, n=300):
    """The same in English."""
    return corpus("en", seed, n, (EN, EN_NOT))


def dense(seed=4, mb=1.0):
    """[text] of about mb megabytes of UTF-8: tables of customers, Chinese and English in turn, about 10 kB each."""
    rng, out, size = random.Random(f"dense {seed}"), [], 0
    while size < mb * 1e6:
        out.append(table(rng, ("zh", "en")[len(out) % 2], 150)[0])
        size += len(out[-1].encode())
    return out
