"""The kernel of fasttext_model: UTF-8 bytes to the probabilities of a classifier's labels."""

from typing import NamedTuple

import numpy as np

from gristmill.udfs.kernels import jit

HIERARCHICAL, SOFTMAX = 1, 3                                    # of fastText's loss_name; 2 and 4 are one sigmoid a label
FNV_START, FNV_PRIME, WORD_PRIME = np.uint32(2166136261), np.uint32(16777619), np.uint64(116049371)
EPSILON = np.float32(1e-5)                                     # fastText's std_log adds it to every probability
LABEL, END_OF_LINE = (np.frombuffer(word, np.uint8) for word in (b"__label__", b"</s>"))


class Weights(NamedTuple):
    """What the kernel reads. Rows of `inputs`: the words, then the n-grams; columns of `outputs`: labels, or inner nodes of the tree."""

    inputs: np.ndarray        # float32[rows, dim]
    outputs: np.ndarray       # float32[dim, labels]
    slots: np.ndarray         # int32[2^k]: an open hash table of words, -1 where free
    words: np.ndarray         # uint8: the bytes of all words
    ends: np.ndarray          # int64[words + 1]
    present: np.ndarray       # uint8: one bit for each bucket that pruning left, or empty where nothing was pruned
    rows: np.ndarray          # int32[bucket]: its row, or empty
    tree: np.ndarray          # int32[labels - 1, 2]: children of the Huffman tree's inner nodes, or empty
    bucket: int
    minn: int
    maxn: int
    word_ngrams: int
    loss: int


@jit
def _fnv_step(h, byte):
    """fastText's FNV-1a: it widens each byte with its sign."""
    return np.uint32((h ^ np.uint32(np.int8(byte))) * FNV_PRIME)


@jit
def _fnv(data, begin, end):
    h = FNV_START
    for k in range(begin, end):
        h = _fnv_step(h, data[k])
    return h


@jit
def hash_table(words, ends):
    size = 16
    while size < 4 * len(ends):
        size *= 2
    slots = np.full(size, -1, np.int32)
    for word in range(len(ends) - 1):
        at = np.int64(_fnv(words, ends[word], ends[word + 1])) & (size - 1)
        while slots[at] >= 0:
            at = (at + 1) & (size - 1)
        slots[at] = word
    return slots


@jit
def _find(data, begin, end, h, slots, words, ends):
    """Number of the word data[begin:end] with hash h, or -1."""
    mask = len(slots) - 1
    at = np.int64(h) & mask
    while slots[at] >= 0:
        word = slots[at]
        k, first = 0, ends[word]
        if ends[word + 1] - first == end - begin:
            while k < end - begin and data[begin + k] == words[first + k]:
                k += 1
            if k == end - begin:
                return word
        at = (at + 1) & mask
    return np.int32(-1)


@jit
def _row(bucket, present, rows, first):
    """The input row of an n-gram's bucket, or -1 where pruning took it."""
    if len(rows) == 0:
        return np.int64(first + bucket)
    if present[bucket >> 3] >> (bucket & 7) & 1:       # these 250 KB stay in the second-level cache, the rows do not
        return np.int64(rows[bucket])
    return np.int64(-1)


@jit
def _add_character_ngrams(data, begin, end, minn, maxn, buckets, present, rows, first, inputs, hidden):
    """Add the rows of the n-grams of <word>, the word being data[begin:end]; returns how many there were.

    Arrays come one by one: handing the whole of Weights to the innermost loop made it five times slower.
    """
    n_rows = 0
    for i in range(begin - 1, end + 1):
        if begin <= i < end and data[i] & 0xC0 == 0x80:
            continue
        h, j = FNV_START, i
        for n in range(1, maxn + 1):
            if j > end:
                break
            h = _fnv_step(h, 60 if j < begin else 62 if j == end else data[j])
            j += 1
            while j < end and data[j] & 0xC0 == 0x80:
                h = _fnv_step(h, data[j])
                j += 1
            if n >= minn and not (n == 1 and (i < begin or i == end)):
                row = _row(h % buckets, present, rows, first)
                if row >= 0:
                    n_rows += 1
                    for d in range(len(hidden)):
                        hidden[d] += inputs[row, d]
    return n_rows


@jit
def _add_word_ngrams(h, recent, n_words, word_ngrams, buckets, present, rows, first, inputs, hidden):
    """Add the rows of the n-grams of words that end with the word of hash h; recent[k] is the hash k + 1 words before it."""
    n_rows = 0
    for n in range(2, min(word_ngrams, n_words + 1) + 1):
        chain = recent[n - 2]
        for k in range(n - 3, -1, -1):
            chain = chain * WORD_PRIME + recent[k]
        row = _row((chain * WORD_PRIME + h) % buckets, present, rows, first)
        if row >= 0:
            n_rows += 1
            for d in range(len(hidden)):
                hidden[d] += inputs[row, d]
    for k in range(len(recent) - 1, 0, -1):
        recent[k] = recent[k - 1]
    recent[0] = h
    return n_rows


@jit
def _is_text(data, begin, end):
    """False for what fastText reads as a label, __label__…, or as the end of the line, </s>."""
    if end - begin == 4 and data[begin] == 60 and data[begin + 1] == 47 and data[begin + 2] == 115 and data[begin + 3] == 62:
        return False
    k = 0
    while k < len(LABEL) and k < end - begin and data[begin + k] == LABEL[k]:
        k += 1
    return k < len(LABEL)


@jit
def _is_space(byte):
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@jit
def _hidden(data, begin, end, hidden, recent, w):
    """Sum of the input rows of one text into hidden float32[dim]; returns how many there were."""
    minn, maxn, buckets, word_ngrams, first = w.minn, w.maxn, np.uint32(w.bucket), w.word_ngrams, len(w.ends) - 1
    inputs, present, rows, slots, words, ends = w.inputs, w.present, w.rows, w.slots, w.words, w.ends
    hidden[:] = 0
    at, n_rows, tokens = begin, 0, 0
    while at <= end:
        if at < end and _is_space(data[at]):
            at += 1
            continue
        start, h = at, FNV_START
        while at < end and not _is_space(data[at]):
            h = _fnv_step(h, data[at])
            at += 1
        if start == end:                                 # predict() ends every text with this word, which has no n-grams
            h = _fnv(END_OF_LINE, 0, 4)
            word = _find(END_OF_LINE, 0, 4, h, slots, words, ends)
            at += 1
        elif not _is_text(data, start, at):
            continue
        else:
            word = _find(data, start, at, h, slots, words, ends)
            if maxn > 0:
                n_rows += _add_character_ngrams(data, start, at, minn, maxn, buckets, present, rows, first, inputs, hidden)
        if word >= 0:
            for d in range(len(hidden)):
                hidden[d] += inputs[word, d]
            n_rows += 1
        if word_ngrams > 1:
            signed = np.uint64(np.int64(np.int32(h)))
            n_rows += _add_word_ngrams(
                signed, recent, tokens, word_ngrams, np.uint64(buckets), present, rows, first, inputs, hidden)
        tokens += 1
    return n_rows


@jit
def _output(hidden, scores, nodes, out, loss, outputs, tree):
    """Probabilities of the labels into out float32[labels], from the mean of the input rows; scores and nodes are scratch."""
    n = outputs.shape[1]
    scores[:] = 0
    for d in range(len(hidden)):
        for k in range(n):
            scores[k] += hidden[d] * outputs[d, k]
    if loss == HIERARCHICAL:
        nodes[2 * n - 2] = 1
        for k in range(n - 2, -1, -1):
            right = 1 / (1 + np.exp(-scores[k]))
            nodes[tree[k, 0]] = nodes[n + k] * (1 - right + EPSILON)
            nodes[tree[k, 1]] = nodes[n + k] * (right + EPSILON)
        out[:] = nodes[:n]
    elif loss == SOFTMAX:
        out[:] = np.exp(scores - scores.max())
        out[:] = out / out.sum() + EPSILON
    else:
        for k in range(n):                               # fastText looks the sigmoid up in 512 steps from -8 to 8
            x = scores[k]
            out[k] = EPSILON + (0 if x < -8 else 1 if x > 8 else 1 / (1 + np.exp(-(np.floor((x + 8) * 32) / 32 - 8))))


@jit
def _cut(data, begin, end, limit):
    """Where the first `limit` code points end; 0 is no limit."""
    if limit > 0:
        for k in range(begin, end):
            if data[k] & 0xC0 != 0x80:
                limit -= 1
                if limit < 0:
                    return k
    return end


@jit
def probabilities(data, offsets, limit, w):
    n, (dim, labels) = len(offsets) - 1, w.outputs.shape
    out, scores, nodes = np.zeros((n, labels), np.float32), np.empty(labels, np.float32), np.empty(2 * labels, np.float32)
    hidden, recent = np.empty(dim, np.float32), np.zeros(max(w.word_ngrams - 1, 1), np.uint64)
    for i in range(n):
        n_rows = _hidden(data, offsets[i], _cut(data, offsets[i], offsets[i + 1], limit), hidden, recent, w)
        if n_rows > 0:
            hidden /= n_rows
            _output(hidden, scores, nodes, out[i], w.loss, w.outputs, w.tree)
    return np.minimum(out, np.float32(1))
