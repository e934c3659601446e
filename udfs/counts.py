"""Scores that count: characters, words, lines, tokens."""

import numpy as np
import pyarrow as pa

from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts


@score(pa.int64(), unit="characters")
def char_count(text: Texts) -> np.ndarray:
    """Code points, white space included; 0 for an empty text. Source: Qianfan, data-juicer (keep >= 10)."""
    return text.lengths


@score(pa.int64(), unit="words")
def word_count(text: Texts) -> np.ndarray:
    """Words: each Han or Kana letter is one, other scripts by runs of letters and digits (Unicode annex 29); 0 for an empty text.

    Source: Gopher (en 50 to 100,000), Qianfan 词数目 (1 to 10,000).
    """
    return text.word_counts
