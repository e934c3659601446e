"""Near duplicates by meaning: vectors of length 1, blocked by k-means, for sets that one machine holds.

Vectors come from a column of the data, or from a transformers model in a local folder: the mean of its last layer over the
tokens, as sentence embedding models are used. The last bits of a vector depend on the machine that computed it.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import storage
from gristmill.udfs.errors import InputError

BATCH, TOKENS = 64, 512
SAMPLE = 50_000            # vectors from which the centroids are made
CELL = 300                 # documents in a cell, on the average
PROBES = 4                 # cells in which a document is looked for: its nearest ones
ROUNDS = 10


@functools.cache
def _model(path: str) -> tuple[Any, Any, Any]:
    try:
        import torch
        import transformers
    except ImportError:
        raise InputError("dedup.model needs torch and transformers: pip install 'gristmill[embed]', or name a column") from None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"dedup.model: {path}: no transformers model in this folder ({str(error).splitlines()[0]})") from error
    return torch, tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")


def embed(texts: Sequence[str | None], path: str) -> np.ndarray:
    """float32[n, d]: the model's vector of each text, of length 1; zeros for an empty one."""
    torch, tokenizer, model = _model(path)
    out = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            given = tokenizer([text or " " for text in texts[start : start + BATCH]], padding=True, truncation=True, max_length=TOKENS,
                              return_tensors="pt").to(model.device)
            states = model(**given).last_hidden_state.float()
            mask = given["attention_mask"].unsqueeze(-1).float()
            out.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy())
    made = np.concatenate(out) if out else np.empty((0, model.config.hidden_size), np.float32)
    made[[not (text or "").strip() for text in texts]] = 0
    return unit(made)


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors at length 1, float32; a zero, or one that is not finite, stays zero."""
    vectors = np.nan_to_num(np.asarray(vectors, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def of_column(table: pa.Table, name: str) -> np.ndarray:
    """float32[n, d] of a column of lists of numbers, all of one length; null is a zero. Raises InputError."""
    if name not in table.column_names:
        raise InputError(f"dedup.column: the data has no column '{name}'; it has {', '.join(table.column_names)}")
    rows = table[name].to_pylist()
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) > 1:
        raise InputError(f"dedup.column: '{name}' has vectors of {min(sizes)} and of {max(sizes)} numbers")
    width = sizes.pop() if sizes else 1
    return unit(np.array([[0.0] * width if row is None else row for row in rows], np.float32).reshape(len(rows), width))


@dataclass(frozen=True)
class Centroids:
    """The task: the vectors of every source in, the centroids of a k-means out, as a .npy file. The sample is of the least id hashes."""

    sketches: tuple[str, ...]
    url: str
    seed: int

    def __call__(self, count: int) -> None:
        found: list[tuple[bytes, bytes]] = []
        for url in self.sketches:
            with storage.parquet(url) as file:
                for batch in file.iter_batches(columns=["id", "sketch"]):
                    found += [(hashlib.blake2b(f"{self.seed}\0{id_}".encode(), digest_size=8).digest(), vector)
                              for id_, vector in zip(batch["id"].to_pylist(), batch["sketch"].to_pylist(), strict=True) if any(vector)]
            found = sorted(found)[:SAMPLE]
        widths = {len(vector) for _, vector in found}
        if len(widths) > 1:
            raise InputError("dedup: the vectors are of several lengths; the release was embedded by another model")
        vectors = np.frombuffer(b"".join(vector for _, vector in found), np.float32).reshape(len(found), -1)
        with storage.write(self.url) as out:
            np.save(out, kmeans(vectors, max(1, min(count // CELL, len(vectors) // 10))))


def kmeans(vectors: np.ndarray, cells: int) -> np.ndarray:
    """float32[cells, d]: spherical k-means from the first `cells` vectors on, which the caller has shuffled."""
    centroids = vectors[:cells].copy()
    for _ in range(ROUNDS):
        nearest = assign(vectors, centroids, 1)[:, 0]
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, vectors)
        empty = np.bincount(nearest, minlength=len(centroids)) == 0
        centroids = np.where(empty[:, None], centroids, unit(sums))
    return centroids


def assign(vectors: np.ndarray, centroids: np.ndarray, probes: int) -> np.ndarray:
    """int64[n, probes]: the nearest centroids of each vector, the nearest first."""
    probes, out = min(probes, len(centroids)), []
    for start in range(0, len(vectors), 4096):
        near = vectors[start : start + 4096] @ centroids.T
        part = np.argpartition(-near, probes - 1, axis=1)[:, :probes]
        order = np.argsort(-np.take_along_axis(near, part, axis=1), axis=1, kind="stable")
        out.append(np.take_along_axis(part, order, axis=1))
    return np.concatenate(out) if out else np.empty((0, probes), np.int64)


@functools.lru_cache(maxsize=2)
def load(url: str) -> np.ndarray:
    """Centroids as they were saved."""
    fs, path = storage.filesystem(url)
    with fs.open(path, "rb") as file:
        return np.load(file)
