"""The keys of new documents, and Bloom filters of them: of old documents only what may meet a new one has to be sent anywhere.

Both lie in one folder, two files a bucket: the keys, sorted and each once, with the first document that has it, and the
filter, BITS a key. A key that is not among them passes a filter with probability 0.004.
"""

import functools

import numpy as np
import pyarrow as pa

from gristmill.jobs import parts, sketches, storage
from gristmill.udfs import kernels_clusters

BITS = 12                # of a filter, a key
KEYS = pa.schema([("key", pa.uint64()), ("number", pa.int64())])


def leave(folder: str, bucket: int, keys: np.ndarray, numbers: np.ndarray) -> None:
    """Write a bucket's keys, which ascend, uint64[m], and their documents int64[m]."""
    with parts.Writer(storage.join(folder, f"{bucket:05d}.parquet"), KEYS) as writer:
        writer.write(pa.table({"key": keys, "number": numbers}))
    words = np.zeros((len(keys) * BITS // 512 + 1) * kernels_clusters.BLOCK, np.uint64)
    kernels_clusters.fill(words, keys)
    with storage.write(storage.join(folder, f"{bucket:05d}.npy")) as out:
        np.save(out, words)


def read(folder: str, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """A bucket's keys and their documents."""
    table = pa.concat_tables([KEYS.empty_table(), *sketches.read(storage.join(folder, f"{bucket:05d}.parquet"))])
    return table["key"].to_numpy(), table["number"].to_numpy()


@functools.lru_cache(maxsize=1)
def load(folder: str, buckets: int, mark: str) -> tuple[np.ndarray, np.ndarray]:
    """(words uint64[w], starts int64[buckets + 1]) of every bucket's filter; once a process for one `mark`, which names the keys."""
    there, found = set(storage.names(folder, ".npy")), []
    for bucket in range(buckets):
        name = f"{bucket:05d}.npy"
        if name in there:
            fs, path = storage.filesystem(storage.join(folder, name))
            with fs.open(path, "rb") as file:
                found.append(np.load(file))
        else:
            found.append(np.empty(0, np.uint64))
    return np.concatenate(found), np.cumsum([0, *(len(words) for words in found)])
