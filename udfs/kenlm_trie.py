"""Reads a KenLM trie file into hash tables that a numba kernel can query.

KenLM's quantised tries are small on disk (5 to 7 bytes an n-gram) but slow to query:
every order is one more interpolation search in packed bits, and each search waits for
the one before it. Here the file is unpacked once into a hash table for each order.
The address of a look-up depends on the words alone, so the processor can have many
under way; a bucket of eight n-grams is one cache line and is compared at once.

An n-gram is known by 32 bits of its hash and its bucket. Two n-grams of the model are
never confused (the seed is changed until none are); an absent one is taken for a
present one with a chance of about 1e-9. Scores equal KenLM's but for that, and for the
order in which floats are added.

Read are quantised tries of format version 5, with and without array-compressed
pointers, as KenLM's `lm/binary_format.cc`, `lm/trie.cc`, `lm/quantize.cc` and
`lm/bhiksha.cc` lay them out. The tables take about 16 bytes an n-gram.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0"
TYPES = ("probing", "rest_probing", "trie", "quant_trie", "array_trie", "quant_array_trie")
_SANITY, _FIXED = 88, 20  # bytes of the fixed parts of the header
BUCKET = 16  # uint32 of a bucket: eight checks, then the eight n-grams' weights
PRESENT = np.uint32(1 << 31)
CODE_BITS = 15  # room for a weight's code in a slot: PRESENT | backoff | probability
_FILL = 0.55  # share of slots used; fuller buckets spill into their neighbours


class Header(NamedTuple):
    """Type, number of n-grams by order, and bytes before the vocabulary."""

    type: str
    counts: tuple[int, ...]
    size: int


class Tables(NamedTuple):
    """What the scoring kernel reads. Word 0 is <unk>."""

    unigrams: np.ndarray  # float32[words, 2]: log10 probability, backoff
    buckets: np.ndarray  # uint32[]: the tables of orders 2, 3, ..., one after another
    firsts: np.ndarray  # int64[order]: first bucket of each table, and the end
    probs: np.ndarray  # float32[order - 1, codes]
    backoffs: np.ndarray  # float32[order - 1, codes]
    seed: np.uint64
    begin: int  # word <s>
    end: int  # word </s>


def read_header(data: np.ndarray) -> Header | None:
    """The header of a KenLM binary, None if `data` (uint8[]) is none."""
    if data.size < _SANITY + _FIXED or bytes(data[: len(MAGIC)]) != MAGIC:
        return None
    order, kind = int(data[_SANITY]), int(data[_SANITY + 8])
    end = _SANITY + _FIXED + 8 * order
    if kind >= len(TYPES) or data.size < end:
        return None
    counts = tuple(int(n) for n in data[_SANITY + _FIXED : end].view("<u8"))
    return Header(TYPES[kind], counts, (end + 7) // 8 * 8)


def read(data: np.ndarray) -> tuple[np.ndarray, Tables] | None:
    """uint8[] of a file -> (uint64[words - 1], Tables); None if the type is not read here.

    The word of id i > 0 is the one whose MurmurHash64A is hashes[i - 1]; they ascend.
    Raises ValueError if the file ends before its header says that it should.
    """
    header = read_header(data)
    if header is None or not header.type.startswith("quant") or len(header.counts) < 2:
        return None
    counts, order, at = header.counts, len(header.counts), header.size
    words = int(data[at : at + 8].view("<u8")[0])
    hashes = data[at + 8 : at + 8 + 8 * words].view("<u8").copy()
    at += 8 + 8 * counts[0]
    widths = int(data[at + 1]), int(data[at + 2])
    if max(widths) > CODE_BITS:
        return None
    at += 8
    probs = np.zeros((order - 1, 1 << widths[0]), np.float32)
    backoffs = np.zeros((order - 1, 1 << widths[1]), np.float32)
    for n in range(order - 1):
        for bins in (probs, backoffs)[: 1 if n == order - 2 else 2]:
            bins[n] = data[at : at + 4 * bins.shape[1]].view("<f4")
            at += 4 * bins.shape[1]

    top = data[at : at + 16 * (counts[0] + 1)].view([("p", "<f4"), ("b", "<f4"), ("next", "<u8")])
    unigrams = np.stack([top["p"], top["b"]], axis=1)[:-1].copy()
    first = top["next"].astype(np.int64)
    at += 16 * (counts[0] + 2)

    levels = []
    for n in range(1, order):
        if not (first[0] == 0 and first[-1] == counts[n] and (np.diff(first) >= 0).all()):
            raise ValueError(f"the {n}-grams' pointers to the {n + 1}-grams are not in order")
        longest = n == order - 1
        inline, offsets = 0, np.zeros(1, np.uint64)
        if not longest:
            inline = counts[n + 1].bit_length()
            if "array" in header.type:
                inline -= _chopped(counts[n] + 1, counts[n + 1], inline, int(data[at + 1]))
                entries = (counts[n + 1] >> inline) + 1
                start = (at + 7) // 8 * 8 + 8
                offsets = data[start : start + 8 * entries].view("<u8")
                at += 8 * (1 + entries) + 7
        bits = (counts[0].bit_length(), 0 if longest else widths[1], widths[0], inline)
        end = at + ((1 + counts[n]) * sum(bits) + 7) // 8 + 8
        if end > data.size:
            raise ValueError(f"the file has {data.size} bytes, its {n + 1}-grams end at {end}")
        levels.append((*_records(data[at:end], counts[n], bits, offsets), first))
        first, at = levels[-1][2], end
    marks = [_word(hashes, murmur(mark)) for mark in (b"<s>", b"</s>")]
    seed, buckets, firsts = _tables(levels, counts)
    return hashes, Tables(unigrams, buckets, firsts, probs, backoffs, seed, *marks)


def _tables(levels: list, counts: tuple) -> tuple[np.uint64, np.ndarray, np.ndarray]:
    firsts = np.cumsum([0, *(int(n / _FILL / 8) + 2 for n in counts[1:])])
    for seed in map(np.uint64, range(100)):
        room = np.empty((int(firsts[-1]) + 1) * BUCKET, np.uint32)  # numpy asks for huge pages
        room[:] = 0
        start = -room.ctypes.data % 64 // 4  # a bucket is one cache line
        buckets = room[start : start + int(firsts[-1]) * BUCKET]
        keys = np.arange(counts[0]).astype(np.uint64) ^ seed
        for n, (word, payload, _, first) in enumerate(levels):
            keys, clash = _insert(word, payload, first, keys, buckets, firsts[n], firsts[n + 1])
            if clash:
                break
        else:
            return seed, buckets, firsts
    raise ValueError("no seed tells this model's n-grams apart")


def _chopped(entries: int, following: int, required: int, most: int) -> int:
    """High bits of a pointer that an array-compressed trie keeps in its offset table."""
    chops = range(min(required, most) + 1)
    return min(chops, key=lambda chop: (following >> (required - chop)) * 64 - entries * chop)


def _word(hashes: np.ndarray, key: int) -> int:
    at = int(np.searchsorted(hashes, np.uint64(key)))
    return at + 1 if at < hashes.size and int(hashes[at]) == key else 0


def murmur(key: bytes) -> int:
    """MurmurHash64A with seed 0 (Appleby, public domain): KenLM's hash of a word."""
    mask, m = (1 << 64) - 1, 0xC6A4A7935BD1E995
    h = len(key) * m & mask
    for start in range(0, len(key) - 7, 8):
        k = int.from_bytes(key[start : start + 8], "little") * m & mask
        h = (h ^ ((k ^ k >> 47) * m & mask)) * m & mask
    if rest := key[len(key) // 8 * 8 :]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 47) * m & mask
    return h ^ h >> 47


@njit(cache=True, nogil=True, inline="always")
def extend(key, word):
    """Key of an n-gram from the key of its suffix and the word before that."""
    return key * np.uint64(0x7C9BF3A5D41D8E57) ^ np.uint64(word + 1) * np.uint64(0xF85E1A3C9B7D2E47)


@njit(cache=True, nogil=True, inline="always")
def home(begin, end, key):
    """(bucket, check) of a key among the buckets begin..end: where it is kept, by what mark."""
    mixed = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    share = ((mixed >> np.uint64(32)) * np.uint64(end - begin)) >> np.uint64(32)
    return begin + np.int64(share), np.uint32(mixed & np.uint64(0xFFFFFFFF)) | np.uint32(1)


@njit(cache=True, nogil=True)
def _bits(data, position, width):
    """`width` (at most 57) bits, lowest first, from bit `position`."""
    byte, value = position >> 3, np.uint64(0)
    for i in range(8):
        value |= np.uint64(data[byte + i]) << np.uint64(8 * i)
    return (value >> np.uint64(position & 7)) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))


@njit(cache=True, nogil=True)
def _records(data, count, bits, offsets):
    """Oldest word, slot value and first child of each of one order's records."""
    word_bits, backoff_bits, prob_bits, inline = bits
    total = word_bits + backoff_bits + prob_bits + inline
    word, payload = np.empty(count, np.int32), np.empty(count, np.uint32)
    first, high = np.empty(count + 1, np.int64), 0
    for i in range(count + 1):
        at = i * total
        while high + 1 < offsets.size and offsets[high + 1] <= np.uint64(i):
            high += 1
        low = _bits(data, at + total - inline, inline)
        first[i] = np.int64((np.uint64(high) << np.uint64(inline)) | low)
        if i < count:
            word[i] = _bits(data, at, word_bits)
            backoff = _bits(data, at + word_bits, backoff_bits)
            prob = _bits(data, at + word_bits + backoff_bits, prob_bits)
            payload[i] = np.uint32(backoff << np.uint64(CODE_BITS) | prob) | PRESENT
    return word, payload, first


@njit(cache=True, nogil=True)
def _insert(word, payload, first, keys, buckets, begin, end):
    """Puts one order's records into their buckets; returns their keys and whether two clash.

    The file is a trie of reversed n-grams: the children of w2..wn, whose keys and first
    children are given, are the n-grams w1 w2..wn.
    """
    own = np.empty(word.size, np.uint64)
    for parent in range(keys.size):
        for i in range(first[parent], first[parent + 1]):
            own[i] = extend(keys[parent], np.int64(word[i]))
            bucket, check = home(begin, end, own[i])
            slot = bucket * BUCKET
            while buckets[slot] != 0:
                if buckets[slot] == check:
                    return own, True
                slot += 1
                if slot % BUCKET == 8:
                    slot += 8
                    if slot == end * BUCKET:
                        slot = begin * BUCKET
            buckets[slot], buckets[slot + 8] = check, payload[i]
    return own, False
