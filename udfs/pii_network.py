"""What names a person or opens a door on a network: addresses, credentials, keys, wallets, places."""

from gristmill.udfs import pii_checks as checks
from gristmill.udfs.kernels_pii import ADDRESS, ASSIGNED, BLOCK, CUE, DECIMAL, MAIL, TOKEN, WALLET
from gristmill.udfs.pii_entities import Entity, pattern, words

PIECES = {
    "V4": r"(?:<OCTET>\.){3}<OCTET>".replace("<OCTET>", r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"),
    "BEFORE": r"(?<![0-9A-Za-z._\-]|[vV][ ])", "AFTER": r"(?![0-9A-Za-z_]|[.\-]\d|\.[A-Za-z])",
    "SMALL": r"(?:\d\d?\.){3}\d\d?(?!\d)",                  # as chapters and versions are numbered
    "V6": r"(?:(?<=(?i:ipv6|v6|ip):)|(?<![0-9A-Za-z:.]))(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{3,39}",
    "AT": r"(?:[ ]?[(\[](?i:at)[)\]][ ]?|@)", "SCHEME": r"[A-Za-z][A-Za-z0-9+.\-]{1,15}://",
    "SIDE": r"(?:(?<![A-Za-z])[NSEW][ ]?|[北南]纬[ ]?|[东西]经[ ]?)?", "HALF": r"(?:[ ]?[NSEWnsew北南东西](?![A-Za-z经纬]))?",
    "DEGREES": r"\d{1,3}(?:\.\d{1,8})?[ ]?[°度](?:[ ]?\d{1,2}[ ]?['′’分](?:[ ]?\d{1,2}(?:\.\d{1,6})?[ ]?[\"″”秒])?)?",
    "KEYWORD": r"(?i:(?:api|secret|access)[_\- ]?key|apikey|secret|(?:access|auth)[_\- ]?token|token|密钥|口令)",
}
VERSIONS = words("""版本|章节|标准|固件|驱动|升级到|内核|
    version|ver|release|section|chapter|rfc|oid|firmware|driver|build|chrome|firefox|libreoffice|
    openoffice|table|figure""")
KEYS = (
    r"sk-(?:proj-|svcacct-|ant-[a-z0-9]{1,12}-)?[A-Za-z0-9_\-]{20,200}", r"(?:AKIA|ASIA)[A-Z0-9]{16}", r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{50,120}", r"glpat-[A-Za-z0-9_\-]{20,40}", r"xox[abprs]-[A-Za-z0-9\-]{20,200}", r"AIza[A-Za-z0-9_\-]{35}",
    r"hf_[A-Za-z0-9]{30,40}", r"LTAI[A-Za-z0-9]{16,24}", r"AKID[A-Za-z0-9]{32}", r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{20,120}",
    r"npm_[A-Za-z0-9]{36}", r"dop_v1_[a-f0-9]{64}", r"bce-v3/ALTAK-[A-Za-z0-9]{21}/[a-f0-9]{40}",
    r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}", r"eyJ[A-Za-z0-9_\-]{17,2000}\.eyJ[A-Za-z0-9_\-]{17,4000}\.[A-Za-z0-9_\-]{20,1000}",
)


def _made(text: str) -> str:
    return pattern(text, **PIECES)


NETWORK = (
    Entity("EMAIL_ADDRESS", MAIL, (
        ("address", _made(r"""(?<![A-Za-z0-9._%+\-]|://[^\s/@]{0,80})[A-Za-z0-9_%+][A-Za-z0-9_%+\-]{0,63}(?:\.[A-Za-z0-9_%+\-]{1,40}){0,8}<AT>
            (?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9\-]|\.[A-Za-z0-9])"""), 0.5),),
        check=checks.mail),
    Entity("URL_CREDENTIALS", MAIL, (
        ("user and password", _made(r"""(?<=<SCHEME>)[^\s/:@<>"'\x00]{1,64}:[^\s/@<>"'\x00]{1,80}(?=@[A-Za-z0-9\[])"""), 0.9),)),
    Entity("IP_ADDRESS", ADDRESS, (
        ("IPv4", _made(r"<BEFORE>(?!<SMALL>)<V4><AFTER>"), 0.5), ("small numbers", _made(r"<BEFORE>(?=<SMALL>)<V4><AFTER>"), 0.15),
        ("IPv6", _made(r"<V6>(?::(?:\d{1,3}\.){3}\d{1,3})?(?![0-9A-Za-z:])"), 0.6)),
        words("ip|ip地址|地址|服务器|主机|登录|host|server|address|ping|dns"), VERSIONS, checks.public_address),
    Entity("IP_PRIVATE", ADDRESS, (
        ("IPv4", _made(r"<BEFORE>(?!(?<=^[ \t]{0,8})<SMALL>)<V4><AFTER>"), 0.6),
        ("IPv6", _made(r"<V6>(?:%[a-z0-9]{1,12})?(?![0-9A-Za-z:])"), 0.6)),
        words("ip|地址|服务器|主机|host|server|address|ping"), VERSIONS, checks.private_address),
    Entity("MAC_ADDRESS", ADDRESS, (
        ("pairs", r"(?<![0-9A-Za-z:\-])[0-9A-Fa-f]{2}([:\-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Za-z:]|-[0-9A-Fa-f])", 0.7),
        ("Cisco", r"(?<![0-9A-Za-z.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![0-9A-Za-z.])", 0.3)),
        words("mac|物理地址|网卡|ethernet|hardware address"), (), checks.mac),
    Entity("CRYPTO", WALLET, (
        ("Bitcoin, Tron", pattern(r"<START>[13T][1-9A-HJ-NP-Za-km-z]{25,34}<END>"), 0.5),
        ("Bitcoin, Bech32", pattern(r"<START>(?:bc1[ac-hj-np-z02-9]{17,71}|BC1[AC-HJ-NP-Z02-9]{17,71})<END>"), 0.5),
        ("Ethereum", pattern(r"<START>0[xX][0-9A-Fa-f]{40}<END>"), 0.6)),
        words("钱包|比特币|以太坊|wallet|bitcoin|btc|ethereum|eth|usdt"), (), checks.wallet),
    Entity("API_KEY", TOKEN | CUE | BLOCK, (
        ("known prefix", rf"(?<![0-9A-Za-z_\-])(?:{'|'.join(KEYS)})(?![0-9A-Za-z_\-])", 0.9),
        ("private key", r"-----BEGIN[A-Z ]{0,24} PRIVATE KEY-----[^\x00]{16,8000}?-----END[A-Z ]{0,24} PRIVATE KEY-----", 0.95),
        ("after a cue", _made(r"""(?<=[:：="' ])(?=[A-Za-z0-9_\-+/]{20})(?<=<KEYWORD>["']?[ ]?[:：=][ ]?["']?)
            [A-Za-z0-9_\-+/]{20,86}={0,2}(?![A-Za-z0-9_\-+/=])"""), 0.6)),
        check=checks.secret, cues=words("key|secret|token|密钥|口令"), follow=ASSIGNED),
    Entity("GPS_COORDINATES", DECIMAL, (
        ("decimal pair", r"""(?<![0-9A-Za-z.\-])[+\-]?\d{1,3}\.\d{4,10}[ ]?[,;/ ][ ]?[+\-]?\d{1,3}\.\d{4,10}(?![0-9A-Za-z.])""", 0.3),
        ("degrees", _made(r"<SIDE>(?<![\d.])<DEGREES><HALF>[ ]?[,、/和]?[ ]?<SIDE><DEGREES><HALF>(?![0-9])"), 0.3)),
        words("""经纬度|坐标|定位|位置|位于|经度|纬度|gps|lat|latitude|longitude|location|coordinates|coordinate|located"""),
        words("色坐标|像素|cie|pixel"), checks.degrees),
)
