"""Text as cc_net's language models were trained to read it.

Needed only for a published pair of a SentencePiece model and a KenLM model (cc_net,
and those trained for BigScience or RedPajama in its manner): their perplexities, and
every cut-off published for them, hold for this preparation alone. Never for text that
a user sees: it takes accents and Hangul apart.

Source: Wenzek et al. 2020, and the behaviour of cc_net's `text_normalizer` with its
default arguments. Like there, control characters vanish, line breaks among them, so
a document is one line to the model.
"""

import re
import unicodedata
from collections.abc import Callable

_TWINS = {
    ",": "，、", ".": "。", '"': "„“”«»「」《》", "'": "´’", ":": "：∶", ";": "；", "?": "？", "!": "！", "(": "（", ")": "）",
    "<": "〈", ">": "〉", "[": "【", "]": "】", "%": "％", "~": "～", "-": "–━►", " - ": "—", ". ": "．", "...": "…",
}  # fmt: skip
_PUNCTUATION = str.maketrans({char: twin for twin, chars in _TWINS.items() for char in chars})
_DIGIT = re.compile(r"\d")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def normalise(text: str) -> str:
    """Lower case, no accents (the rest stays decomposed), digits 0, ASCII punctuation, no controls.

    "" for white space alone.
    """
    plain = unicodedata.normalize("NFD", text.strip().lower())
    plain = "".join(char for char in plain if unicodedata.category(char) != "Mn")
    return _CONTROL.sub("", _DIGIT.sub("0", plain).translate(_PUNCTUATION))


def pieces(path: str) -> Callable[[str], str]:
    """A function from a text to its normalised SentencePiece pieces, joined by spaces.

    Raises ImportError without the optional package `sentencepiece`.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ImportError(f"{path} is a SentencePiece model: pip install sentencepiece to use it") from error
    processor = SentencePieceProcessor(model_file=path)

    def spell(text: str) -> str:
        legible = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become ?
        return " ".join(processor.encode(normalise(legible), out_type=str))

    return spell
