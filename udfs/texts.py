"""A batch of texts as operators see it: an Arrow string array, with what many operators need computed at most once."""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import kernels, kernels_spans
from gristmill.udfs.characters import LOWER

SCRIPTS = np.array(["und", "zh", "ja", "ko", "en", "und"], dtype=object)   # by kernels.script_codes


class Texts:
    """text[n] in one version: transforms make a new one, scores only read.

    A null reads as an empty text here; the registry puts the nulls back. Positions are code points, never bytes.
    """

    def __init__(self, array: pa.Array):
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        self.array = array if array.type == pa.large_string() else array.cast(pa.large_string())
        self._parts: dict[bytes, Texts] = {}
        self.cache: dict[tuple, np.ndarray] = {}   # what an operator leaves for another one: perplexity for perplexity_bucket

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def nulls(self) -> np.ndarray | None:
        """bool[n], or None where no text is null, which is nearly always."""
        return self.array.is_null().to_numpy(zero_copy_only=False) if self.array.null_count else None

    @cached_property
    def utf8(self) -> tuple[np.ndarray, np.ndarray]:
        """(bytes uint8[m], offsets int64[n + 1]); the offsets start where the Arrow slice starts.

        Both are read-only, as buffers from Spark are: numba would compile every kernel once more for writable ones.
        """
        array = self.array if self.nulls is None else pc.fill_null(self.array, "")   # Arrow lets a null cover bytes
        data, offsets = np.empty(0, np.uint8), np.zeros(1, np.int64)
        if len(array):
            _, ends, content = array.buffers()
            offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
            data = data if content is None else np.frombuffer(content, np.uint8)
        data.flags.writeable = offsets.flags.writeable = False
        return data, offsets

    @cached_property
    def sizes(self) -> np.ndarray:
        """Bytes of each text, int64[n]."""
        return np.diff(self.utf8[1])

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, np.ndarray]:
        data, offsets = self.utf8
        codes = np.empty(int(offsets[-1] - offsets[0]), np.int32)
        ends = np.zeros(len(self) + 1, np.int64)
        return codes[: kernels.decode(data, offsets, codes, ends)], ends

    @property
    def codes(self) -> np.ndarray:
        """Code points of all texts, int32[m]; a byte that is not UTF-8 reads as U+FFFD."""
        return self._decoded[0]

    @property
    def offsets(self) -> np.ndarray:
        """Where each text starts in `codes`, int64[n + 1]."""
        return self._decoded[1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Code points of each text, int64[n]."""
        return np.diff(self.offsets)

    @cached_property
    def bits(self) -> np.ndarray:
        """characters.BITS of each code point, uint16[m]."""
        return kernels.bits_of(self.codes)

    @cached_property
    def lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(starts, ends, first) of all lines, see kernels.line_spans."""
        return kernels.line_spans(self.codes, self.offsets)

    @cached_property
    def words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(starts, ends, first) of all words, see kernels.word_spans."""
        return kernels.word_spans(self.codes, self.bits, self.offsets)

    @cached_property
    def word_hashes(self) -> np.ndarray:
        """64-bit hash of each word in lower case, uint64[m]."""
        return kernels_spans.span_hashes(self.codes, self.words[0], self.words[1], LOWER)

    @cached_property
    def word_counts(self) -> np.ndarray:
        return np.diff(self.words[2])

    @cached_property
    def languages(self) -> np.ndarray:
        """What the script says of each text: zh, ja, ko, en (any Latin text) or und; object[n]."""
        return SCRIPTS[kernels.script_codes(self.bits, self.offsets)]

    def count(self, mask: int) -> np.ndarray:
        """Code points of each text that have any of the character bits, int64[n]."""
        return kernels.count_bits(self.bits, self.offsets, mask)

    def take(self, chosen: np.ndarray) -> "Texts":
        """The texts at these positions, or where this mask is true."""
        at = pa.array(chosen)
        return Texts(self.array.filter(at) if pa.types.is_boolean(at.type) else self.array.take(at))

    def part(self, mask: np.ndarray) -> "Texts":
        """The texts where the mask is true; the same object for an equal mask, so that groups by language share their work."""
        key = mask.tobytes()
        if key not in self._parts:
            self._parts[key] = self.take(mask)
        return self._parts[key]

    def replace(self, flagged: np.ndarray, function) -> pa.Array:
        """The array with function(str) -> str applied where flagged, bool[n]; the others are not touched.

        This is how Python that costs microseconds a document stays behind a cheap kernel.
        """
        if not flagged.any():
            return self.array
        mask = pa.array(flagged)
        changed = [None if text is None else function(text) for text in self.array.filter(mask).to_pylist()]
        return pc.replace_with_mask(self.array, mask, pa.array(changed, pa.large_string()))


def from_codes(codes: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """Code points int32[m] and offsets int64[n + 1] as an Arrow large_string array[n]."""
    data, ends = np.empty(4 * len(codes), np.uint8), np.zeros(len(offsets), np.int64)
    size = kernels.encode(codes, offsets, data, ends)
    return from_utf8(data[:size], ends)


def from_utf8(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """UTF-8 bytes uint8[m] and offsets int64[n + 1] as an Arrow large_string array[n], without a copy."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole as float64[n], 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(len(part), np.float64), where=whole > 0)
