"""Supervised fastText models (.bin and .ftz) read into numpy arrays and computed by one kernel from UTF-8 bytes.

The library builds a string for every n-gram; this hashes them in place, gives the same probabilities to 1e-4
(tests/test_language.py) and takes a sixth of the time. The library is needed for training only.
"""

import struct
from dataclasses import dataclass

import numpy as np

from gristmill.udfs import kernels_fasttext
from gristmill.udfs.kernels_fasttext import HIERARCHICAL, Weights

MAGIC, VERSION, SUPERVISED = 793712314, 12, 3


@dataclass(frozen=True)
class Classifier:
    """labels[k] without their prefix, and the weights."""

    labels: tuple[str, ...]
    weights: Weights

    def probabilities(self, data: np.ndarray, offsets: np.ndarray, limit: int = 0) -> np.ndarray:
        """float32[n, labels] of the first `limit` characters (0: all) of each text, uint8[m] and int64[n + 1]; 0 without a feature."""
        return kernels_fasttext.probabilities(data, offsets, limit, self.weights)


class _Reader:
    def __init__(self, path: str):
        with open(path, "rb") as file:
            self.data, self.at = file.read(), 0

    def get(self, form: str) -> tuple:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, dtype: type, count: int) -> np.ndarray:
        values: np.ndarray = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def text(self) -> bytes:
        end = self.data.index(b"\0", self.at)
        value, self.at = self.data[self.at : end], end + 1
        return value

    def matrix(self, quantised: bool) -> np.ndarray:
        """float32[rows, columns]; a product-quantised one is unpacked, which for lid.176.ftz takes 3 MB."""
        if not quantised:
            rows, columns = self.get("qq")
            return self.array(np.float32, rows * columns).reshape(rows, columns)
        normed, rows, columns, size = self.get("?qqi")
        codes = self.array(np.uint8, size).reshape(rows, -1)
        full = self._centroids(codes, columns)
        if normed:
            full *= self._centroids(self.array(np.uint8, rows).reshape(rows, 1), 1)
        return full

    def _centroids(self, codes: np.ndarray, columns: int) -> np.ndarray:
        _, parts, width, _ = self.get("4i")
        centroids, full = self.array(np.float32, columns * 256), np.empty((len(codes), columns), np.float32)
        for part in range(parts):
            begin, end = part * width, min((part + 1) * width, columns)
            full[:, begin:end] = centroids[begin * 256 : end * 256].reshape(256, end - begin)[codes[:, part]]
        return full


def load(path: str) -> Classifier:
    """A supervised model as `fasttext supervised` or `fasttext quantize` writes it. Raises ValueError for anything else."""
    try:
        return _read(_Reader(path))
    except (struct.error, IndexError) as error:
        raise ValueError(f"the file is cut short or damaged: {error}") from error


def _read(reader: _Reader) -> Classifier:
    if len(reader.data) < 100 or reader.get("ii") != (MAGIC, VERSION):
        raise ValueError("not a fastText model of version 12")
    _, _, _, _, _, word_ngrams, loss, kind, bucket, minn, maxn, _, _ = reader.get("12id")
    if kind != SUPERVISED:
        raise ValueError("a fastText model of word vectors, not a classifier")
    size, n_words, _, _, n_pruned = reader.get("iiiqq")
    words: list[bytes] = []
    labels: list[bytes] = []
    counts: list[int] = []
    for _ in range(size):
        word, (count, is_label) = reader.text(), reader.get("qb")
        (labels if is_label else words).append(word)
        if is_label:
            counts.append(count)
    pruned = reader.array(np.int32, 2 * max(n_pruned, 0)).reshape(-1, 2)
    inputs = reader.matrix(quantised := reader.get("?")[0])
    outputs = np.ascontiguousarray(reader.matrix(reader.get("?")[0] and quantised).T)
    present, rows = np.empty(0, np.uint8), np.empty(0, np.int32)
    if n_pruned >= 0:
        rows = np.full(bucket, -1, np.int32)
        rows[pruned[:, 0]] = pruned[:, 1] + n_words
        present = np.packbits(rows >= 0, bitorder="little")
    characters, ends = np.frombuffer(b"".join(words), np.uint8), np.cumsum([0, *map(len, words)])
    tree = _huffman(counts) if loss == HIERARCHICAL else np.empty((0, 2), np.int32)
    slots = kernels_fasttext.hash_table(characters, ends)
    weights = Weights(inputs, outputs, slots, characters, ends, present, rows, tree, bucket, minn, maxn, word_ngrams, loss)
    return Classifier(tuple(label.decode("utf-8", "replace").removeprefix("__label__") for label in labels), weights)


def _huffman(counts: list[int]) -> np.ndarray:
    """Children int32[labels - 1, 2] of the inner nodes as fastText numbers them; labels come first, by falling count."""
    n = len(counts)
    weight = counts + [10**15] * (n - 1)
    leaf, node, tree = n - 1, n, np.empty((max(n - 1, 0), 2), np.int32)
    for k in range(n, 2 * n - 1):
        for side in (0, 1):
            if leaf >= 0 and weight[leaf] < weight[node]:
                tree[k - n, side], leaf = leaf, leaf - 1
            else:
                tree[k - n, side], node = node, node + 1
        weight[k] = weight[tree[k - n, 0]] + weight[tree[k - n, 1]]
    return tree
