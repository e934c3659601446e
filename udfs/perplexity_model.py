"""Perplexity of text under a KenLM model, as cc_net defines it.

    model = load("conf/models/zh.klm")
    model.perplexity(codes, offsets)      int32[m], int64[n+1] -> float64[n]

Text i is the code points codes[offsets[i]:offsets[i + 1]]. Each line that has a token is
scored with <s> before and </s> after it; perplexity = 10 ** (-sum log10 p / sum (tokens + 1)).
A text without a token has perplexity NaN. Source: Wenzek et al. 2020 (cc_net).

Quantised tries, which is what scripts/train_lm makes, are scored by a numba kernel; every
other kind of KenLM file, and cc_net's pairs, by the kenlm package, with the same result.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from gristmill.udfs import cc_net_text, kenlm_trie
from gristmill.udfs.kernels_perplexity import lead_table, perplexity, vocabulary_table
from gristmill.udfs.perplexity_tokens import KINDS, encode, fold_table, spell

_TOO_MANY = 1 << 26  # n-grams; beyond, tables of 16 bytes each (1 GB) cost more than they save


class Model:
    """A loaded model: `perplexity` scores texts, `counts` are its n-grams by order."""

    def __init__(self, path: str, tokens: str, sentencepiece: str | None = None):
        self.path, self.tokens = path, tokens
        self.counts: tuple[int, ...] = ()
        self._fast = self._pieces = None
        data = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else np.empty(0, "u1")
        header = kenlm_trie.read_header(data)
        if header:
            self.counts = header.counts
        if sentencepiece:
            self._pieces = cc_net_text.pieces(sentencepiece)
        elif header and sum(header.counts) <= _TOO_MANY:
            try:
                read = kenlm_trie.read(data)
            except (ValueError, IndexError) as error:
                raise ValueError(f"{path} is a damaged KenLM file: {error}") from error
            if read:
                hashes, tables = read
                vocabulary = vocabulary_table(hashes)
                lead = lead_table(vocabulary, fold_table(), tokens == "words")
                self._fast = fold_table(), lead, vocabulary, tables
        if not self._fast:  # any other kind of KenLM file, ARPA included
            import kenlm

            self._kenlm = kenlm.Model(path)

    def perplexity(self, codes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int32[m], int64[n+1] -> float64[n]; NaN where a text has no token."""
        if self._fast:
            return perplexity(codes, offsets, *self._fast)
        if self._pieces:
            texts = [self._pieces(text) for text in encode(codes, offsets)]
        else:
            texts = encode(*spell(codes, offsets, self.tokens))
        return np.array([self._score(text) for text in texts], np.float64)

    def _score(self, text: str) -> float:
        lines = [line for line in text.split("\n") if line]
        length = sum(len(line.split()) + 1 for line in lines)
        total = sum(self._kenlm.score(line) for line in lines)
        return 10.0 ** (-total / length) if length else np.nan


def load(path: str, tokens: str | None = None, sentencepiece: str | None = None) -> Model:
    """The model at `path`, read once a process for each version of the file.

    tokens         "words" or "characters" (perplexity_tokens); None: what manifest.yaml beside the model says
    sentencepiece  path of a SentencePiece model: text is then prepared as cc_net does
    Raises ValueError where none of them says what a token is or the file is damaged, FileNotFoundError where it is missing.
    """
    stat = Path(path).stat()
    if not tokens and not sentencepiece:
        tokens = manifest_entry(path).get("tokens")
    if not sentencepiece and tokens not in KINDS:
        raise ValueError(
            f"{path}: tokens is {tokens!r}, not one of {', '.join(KINDS)}. Pass tokens, or name the model in"
            f" manifest.yaml beside it, as scripts/train_lm does"
        )
    return _load(path, tokens or "pieces", sentencepiece, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _load(path: str, tokens: str, sentencepiece: str | None, _modified: int, _size: int) -> Model:
    return Model(path, tokens, sentencepiece)


def manifest_entry(path: str) -> dict:
    """What manifest.yaml beside the model says about it; {} if nothing."""
    manifest = Path(path).with_name("manifest.yaml")
    if not manifest.is_file():
        return {}
    return (yaml.safe_load(manifest.read_text(encoding="utf-8")) or {}).get(Path(path).name) or {}
