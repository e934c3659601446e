"""What the state, a bank or a network gives to a person: identity documents, cards, number plates, accounts, and the date of birth."""

import itertools
import string

import regex
from stdnum import numdb

from gristmill.udfs import pii_checks as checks
from gristmill.udfs.kernels_pii import BANK, CODE, CUE, DIGITS, LETTER, LONG, PLATE
from gristmill.udfs.pii_entities import Entity, pattern, words
from gristmill.udfs.pii_phones import ORDERS

PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
# A cue, then the value.
NAMED = r"(?<=(?<![A-Za-z])(?i:<CUES>)(?:公众号|公眾號|群|交流群)?(?i:号码|号|帐号|账号|id)?[ ]?(?:是|为|[:：=])<MAYBE>[ ]?)"
CARD = r"(?=[1-9])(?<![0-9A-Za-z_]|\d[ \-.])"
DAY, MONTH, YEAR = r"(?:[12]\d|3[01]|0?[1-9])", r"(?:1[0-2]|0?[1-9])", r"(?:18|19|20)\d{2}"
ENGLISH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
BORN = r"""出生日期|出生年月日|出生年月|出生时间|出生于|生日|(?<![发产衍派诞])生于|诞生于|
    (?<![A-Za-z])(?i:date of birth|birth date|birthday|birthdate|d\.?o\.?b\.?|born(?: on)?)"""
DATE = r"""(?:<YEAR>[ ]?(?:年|[-./])[ ]?<MONTH>(?:[ ]?(?:月|[-./])[ ]?<DAY>(?:[ ]?日)?|[ ]?月)(?!\d)
    |(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)
    |<DAY>[-./]<DAY>[-./](?:18|19|20)?\d{2}(?!\d)
    |(?i:<DAY>(?:st|nd|rd|th)?[ ](?:of[ ])?<ENGLISH>,?[ ]<YEAR>|<ENGLISH>[ ]<DAY>(?:st|nd|rd|th)?,?[ ]<YEAR>)(?!\d))"""
TIMES = {"DAY": DAY, "MONTH": MONTH, "YEAR": YEAR, "ENGLISH": ENGLISH}
QQ, ACCOUNT = words("qq|扣扣|企鹅"), r"(?!id\b|ID\b)[A-Za-z][A-Za-z0-9_\-]{5,19}(?![A-Za-z0-9_\-]|\.[A-Za-z])"
WECHAT = words("微信|薇信|威信|微 信|wechat|weixin|v信|wx|vx")


def _countries() -> dict[str, int]:
    """{country: letters and digits of an IBAN after its check digits}, from SWIFT's registry as python-stdnum has it."""
    found = {}
    for code in map("".join, itertools.product(string.ascii_uppercase, repeat=2)):
        for _, properties in numdb.get("iban").info(code):
            if "bban" in properties:
                found[code] = sum(map(int, regex.findall(r"\d+", properties["bban"])))
    return found


COUNTRIES = _countries()


def _iban() -> str:
    """Country by country, because a length is what tells the number from the word after it."""
    sizes = {size: "|".join(code for code in COUNTRIES if COUNTRIES[code] == size) for size in sorted(set(COUNTRIES.values()))}
    each = "|".join(rf"(?:{codes})\d{{2}}(?:<SEP>[A-Za-z0-9]){{{size}}}" for size, codes in sizes.items())
    return pattern(rf"<START>(?=[A-Za-z]{{2}}\d\d<SEP>[A-Za-z0-9])(?i:{each})<END>")


def _after(cues: tuple[str, ...], value: str, colon: bool) -> str:
    """A value after one of these words, with a colon or 是 between them or, if not `colon`, perhaps none."""
    return pattern(NAMED + value, CUES="|".join(cues), MAYBE="" if colon else "?")


IDENTITY = (
    Entity("ID_CARD_CN", LONG, (
        ("18 digits", pattern(r"<START>[1-9](?:<SEP>\d){16}<SEP>[\dXx]<END>"), 0.5),
        ("15 digits", pattern(r"<GUARD>[1-9]\d{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}<TAIL>"), 0.2)),
        words("身份证|身份號|身份号|证件号|公民身份|id card|id number|identity card"), ORDERS, checks.id_card, "cn"),
    Entity("CREDIT_CODE_CN", CODE, (
        ("18 characters", pattern(r"""<START>[1-9ANYany]<SEP>[1-9A-GYa-gy](?:<SEP>\d){6}
            (?:<SEP>[0-9A-HJ-NP-RTUWXYa-hj-np-rtuwxy]){10}<END>"""), 0.3),),
        words("信用代码|税号|纳税人识别号"), (), checks.credit_code, "cn"),
    Entity("CREDIT_CARD", LONG, (
        ("in one", pattern(CARD + r"[1-9]\d{11,18}<END>"), 0.3),
        ("two lines", pattern(CARD + r"[1-9]\d{3,16}[ ]?\n\d{1,12}<END>"), 0.3),
        ("fours", pattern(CARD + r"[1-9]\d{3}(?:<GAP>\d{4}){3}<END>(?!<GAP>\d{4}(?!\d))"), 0.3),
        ("fours and more", pattern(CARD + r"[1-9]\d{3}(?:<GAP>\d{4}){3}<GAP>\d{1,3}<END>"), 0.3),
        ("other groups", pattern(CARD + r"""(?:[1-9]\d{3}<GAP>\d{6}<GAP>\d{4,5}|[1-9]\d{5}<GAP>\d{6,13}
            |[1-9]\d{7}<GAP>\d{8,11})<END>"""), 0.3)),
        words("银行卡|信用卡|储蓄卡|借记卡|卡号|账号|账户|帐号|card|credit|debit|visa|mastercard|unionpay|amex|account|cc"), ORDERS,
        checks.bank_card),
    Entity("PASSPORT", DIGITS, (
        ("China", pattern(r"""<START>(?:[EeGg]\d{8}|[Ee][A-HJ-NP-Za-hj-np-z]\d{7}|[DSPdsp][Ee]?\d{7}
            |[KHMkhm][A-Za-z]?\d{7,8}|1[45]\d{7})<END>"""), 0.3),
        ("other", pattern(r"<START>(?:[A-Za-z]{1,2}\d{6,8}|\d{9})<END>"), 0.16)),
        words("护照|護照|passport"), (*ORDERS, *words("通行证|回乡证|通行證")), checks.document),
    Entity("TRAVEL_PERMIT_CN", DIGITS, (
        ("permit", pattern(r"<START>(?:[CWcw][A-Za-z]?\d{7,8}|[LTlt]\d{8}|[HMhm]\d{8}(?:\d{2})?)<END>"), 0.3),
        ("Taiwan", pattern(r"<START>\d{8}(?:\d{2}|\([A-Z]\))?<END>"), 0.2)),
        words("通行证|回乡证|台胞证|通行證|回鄉證|台胞證"), (*ORDERS, *words("护照|护照号")), checks.document, "cn"),
    Entity("PLATE_CN", PLATE, (
        ("plate", pattern(r"""[<PROVINCES>][A-HJ-NP-Z][ ]?[·.\-]?[ ]?(?=[A-Z0-9]{0,5}\d)
            (?:[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳]|[DF][A-HJ-NP-Z0-9]\d{4}|\d{5}[DF])<END>""", PROVINCES=PROVINCES), 0.7),),
        words("车牌|牌照|号牌|车号"), country="cn"),
    Entity("IBAN_CODE", BANK, (("IBAN", _iban(), 0.5),), words("iban|account|账号|账户"), (), checks.account),
    Entity("US_SSN", DIGITS, (
        ("dashes", pattern(r"<GUARD>(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}<TAIL>"), 0.55),
        ("spaces", pattern(r"<GUARD>(?!000|666|9)\d{3}[ ](?!00)\d\d[ ](?!0000)\d{4}<TAIL>"), 0.2)),
        words("ssn|social security|social security number|社会安全"), ORDERS, country="us"),
    Entity("QQ", CUE, (
        ("after a cue", r"(?=[1-9])(?<!\d)" + _after(QQ, r"[1-9](?:[ ]?\d){4,10}(?!\d|\.\d)<END>", False), 0.9),), cues=QQ),
    Entity("WECHAT", CUE, tuple(
        (name, r"(?=[A-Za-z])(?<![A-Za-z0-9_\-])" + _after(WECHAT, ACCOUNT, colon), score)
        for name, colon, score in (("after a cue", False, 0.45), ("with a colon", True, 0.8))),
        words("微信号|微信号码|加微信|加我|添加|id"), words("小程序|公众平台"), cues=WECHAT, follow=LETTER),
    Entity("DATE_OF_BIRTH", CUE, (
        ("after a cue", pattern(r"(?=[0-9A-SU-Za-su-z])(?<![0-9A-Za-z])(?<=(?:<BORN>)(?:是|为|is)?[ ]?[:：,]?[ ]?)<DATE>",
                                BORN=pattern(BORN), DATE=pattern(DATE, **TIMES)), 0.85),
        ("before a cue", pattern(r"(?<!\d)<YEAR>[ ]?年[ ]?<MONTH>[ ]?月(?:[ ]?<DAY>[ ]?日)?(?=[ ]?(?:出生|生[,，;；。]))", **TIMES), 0.85)),
        cues=words("日生|月生|出生|生日|生于|date of birth|birth|dob|d.o.b|born")),
)
