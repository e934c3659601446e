"""Telephones: mainland China's, Hong Kong's, Taiwan's, and any other region's through libphonenumber."""

from gristmill.udfs import pii_checks as checks
from gristmill.udfs.kernels_pii import DIGITS
from gristmill.udfs.pii_entities import Entity, pattern, words

# Words after which digits are something else.
ORDERS = words("""订单|单号|流水号|编号|序号|批号|型号|货号|条码|邮编|文号|标准号|案号|期号|发票|准字|批准文号|许可证|股票|代码|
    访问量|容量|金额|数量|总量|总额|时间戳|快递|运单|学号|工号|双色球|isbn|issn|doi|order|invoice|tracking|serial|sku|part|ticket|version|
    arxiv|pmid|patent|cas|icp|timestamp|amount|total|uuid|hash""")
DOCUMENTS = words("护照|通行证|身份证|银行卡|卡号|账号|备案|icp备|第|ssn|social security|passport|permit|card|iban|zip|ip|gb|iso")
CALL = words("""电话|手机|联系|致电|拨打|传真|热线|座机|短信|
    phone|telephone|tel|mobile|cell|cellphone|call|calling|fax|contact|sms|text|dial|whatsapp|
    office|desk|main|answering|messages|reach""")
# Eleven digits that are a statistic: a column between columns of numbers, what follows the year that begins a row, or stands beside
# another number of the size that is no telephone.
FIGURES = r"""(?!(?<=(?:^|[^\d])\d{1,10}[\t ,]{1,2})1\d{10}[\t ,]{1,2}\d{1,10}(?!\d))
    (?<!^(?:19|20)\d\d年?(?:[\t ,]{1,2}\d+){0,4}[\t ,]{1,2})
    (?!1\d{10}[\t\n ,]{1,2}(?:[\u4e00-\u9fff]{1,8}[\t ,]{1,2})?(?!1[3-9]\d{9}(?!\d)|0)\d{11,13}(?!\d))"""
AREA = r"(?:10|2\d|[3-9]\d{2})"

MAINLAND = (
    ("mobile", pattern(r"""<GUARD><FIGURES>(?<!(?<!\d)\d{4}[ ])(?:(?:\((?:\+|00)86\)|(?:\+|00)?86)[ \-]{0,2})?
        1[3-9](?:[ \-]{0,2}\d){9}<TAIL><AMOUNT>""", FIGURES=pattern(FIGURES)), 0.6),
    ("landline", pattern(r"""<GUARD>(?<!\d[ ])(?:(?:\+|00)86[ \-]?)?(?:\(0<AREA>\)[ ]?|0<AREA>[ \-]{1,2})[2-8]\d{2,3}[ \-]?\d{4}
        (?:[ \-]\d{1,5}(?=[^\d\-]|$)|<EXTENSION>)<TAIL>""", AREA=AREA), 0.55),
    ("landline with 86", pattern(r"<GUARD>(?:\+|00)86[ \-]?<AREA>[ \-]?[2-8]\d{2,3}[ \-]?\d{4}<EXTENSION><TAIL>", AREA=AREA), 0.8),
    ("landline in one", pattern(r"<GUARD>0<AREA>[2-8]\d{6,7}<EXTENSION><TAIL>", AREA=AREA), 0.25),
)
PHONES = (
    Entity("PHONE_CN", DIGITS, MAINLAND, words("电话|手机|传真|座机|热线|联系方式|联系人|致电|拨打|tel|phone|mobile|fax"), ORDERS,
           checks.mobile, "cn"),
    Entity("PHONE_HK", DIGITS, (
        ("with 852", pattern(r"<GUARD>(?:\((?:\+|00)852\)|(?:\+|00)852)[ \-]?[2-9]\d{3}[ \-]?\d{4}<TAIL>"), 0.8),
        ("eight digits", pattern(r"<GUARD>(?<!\d[ ])[2-9]\d{3}[ \-]?\d{4}<TAIL>(?![ ]\d)"), 0.16)),
        words("香港|港澳|hong kong|hk"), ORDERS, checks.hong_kong, "hk"),
    Entity("PHONE_TW", DIGITS, (
        ("with 886", pattern(r"<GUARD>(?:\((?:\+|00)886\)|(?:\+|00)886)[ \-]?(?:\(0\)|0)?[ ]?[2-9](?:[ \-]?\d){7,8}<TAIL>"), 0.8),
        ("mobile", pattern(r"<GUARD>09\d{2}([ \-])\d{3}\1\d{3}<TAIL>"), 0.6),
        ("landline", pattern(r"<GUARD>(?:\(0[2-8]\d?\)[ ]?|0[2-8]\d?\-)\d{3,4}[ \-]?\d{4}<EXTENSION><TAIL>"), 0.3),
        ("in one", pattern(r"<GUARD>09\d{8}<TAIL>"), 0.25)),
        words("台湾|台灣|臺灣|電話|手機|傳真|洽詢|請撥|taiwan"), ORDERS, checks.taiwan, "tw"),
    Entity("PHONE_NUMBER", DIGITS, (
        ("international", pattern(r"<GUARD>(?:\+|00)[ ]?[1-9]\d{0,2}(?:[ .\-]?(?:\(\d{1,5}\)|\d{1,5})){2,6}<EXTENSION><TAIL>"), 0.4),
        ("North America", pattern(r"<GUARD>(?:1[ .\-])?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}([.\-]))\d{3}[ .\-]\d{4}<EXTENSION><TAIL>"), 0.5),
        ("national", pattern(r"<GUARD>(?:\(\d{1,5}\)[ .\-]?)?\d{1,5}(?:[ .\-]\d{2,5}){1,5}<EXTENSION><TAIL>"), 0.15),
        ("in one", pattern(r"<GUARD>0?[1-9]\d{6,10}<EXTENSION><TAIL><AMOUNT>"), 0.15)),
        CALL, (*ORDERS, *DOCUMENTS), checks.phone),
)
