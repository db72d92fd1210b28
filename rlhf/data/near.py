"""Near-duplicates: texts whose word 3-shingles have an estimated Jaccard similarity of 0.7 or more (MinHash)."""

import numpy as np
import numpy.typing as npt
import polars as pl
from rensa import RMinHash

SIMILAR = 0.7
_PERMUTATIONS, _BANDS, _SEED = 64, 16, 7
_CHUNK = 4_096

Signatures = npt.NDArray[np.uint32]


def signatures(texts: pl.Series) -> Signatures:
    """Return the MinHash signature of each text over its word 3-shingles (texts up to case and punctuation)."""
    parts = [_signatures(part) for part in texts.to_frame("text").iter_slices(_CHUNK)]
    return np.concatenate(parts) if parts else np.zeros((0, _PERMUTATIONS), np.uint32)


def _signatures(part: pl.DataFrame) -> Signatures:
    words = part.select(
        pl.col("text").str.to_lowercase().str.extract_all(r"[\p{Han}\p{Hiragana}\p{Katakana}]|\w+")
    )
    sizes = words["text"].list.len().to_numpy().astype(np.int64)
    flat = (
        words.select(pl.col("text").explode(empty_as_null=False, keep_nulls=False).hash(seed=6))
        .to_series()
        .to_numpy()
    )
    # Short texts have no three words in a row: two words of padding belong to each text.
    starts = np.concatenate([[0], np.cumsum(sizes + 2)])
    padded = np.zeros(starts[-1], np.uint64)
    inside = np.arange(flat.size) + 2 * np.repeat(np.arange(sizes.size), sizes)
    padded[inside] = flat
    shingles = padded * np.uint64(0x9E3779B97F4A7C15)
    shingles[:-1] += padded[1:] * np.uint64(0xC2B2AE3D27D4EB4F)
    shingles[:-2] += padded[2:]
    wanted = np.ones(starts[-1], bool)
    longer = sizes >= 3
    wanted[starts[1:] - 1] = wanted[starts[1:] - 2] = False
    wanted[(starts[1:] - 3)[longer]] = wanted[(starts[1:] - 4)[longer]] = False
    wanted[starts[:-1][~longer]] = True
    counts = np.add.reduceat(wanted, starts[:-1]) if sizes.size else sizes
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(shingles[wanted], bounds, _PERMUTATIONS, _SEED)
    return np.asarray(digests.to_rows(), np.uint32)


def similar_to_earlier(found: Signatures) -> npt.NDArray[np.int64]:
    """Return for each text the place of an earlier one that it is similar to, or -1."""
    count = len(found)
    match = np.full(count, -1, np.int64)
    if count == 0:
        return match
    places = np.arange(count)
    width = _PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        keys = pl.DataFrame(
            found[:, band * width : (band + 1) * width], schema=[str(i) for i in range(width)]
        )
        bucket = keys.select(pl.struct(pl.all()).hash(seed=8).alias("bucket")).with_row_index("place")
        first = bucket.select(pl.col("place").min().over("bucket")).to_series().to_numpy().astype(np.int64)
        open_rows = np.flatnonzero((first < places) & (match < 0))
        alike = (found[open_rows] == found[first[open_rows]]).mean(axis=1) >= SIMILAR
        match[open_rows[alike]] = first[open_rows[alike]]
    return match


def clusters(texts: pl.Series) -> npt.NDArray[np.int64]:
    """Return a number for each text; near-duplicates, and what is similar to them in turn, share the smallest place."""
    match = similar_to_earlier(signatures(texts))
    root = np.arange(len(match))
    for place in range(len(match)):  # an earlier text has found its cluster already
        if match[place] >= 0:
            root[place] = root[match[place]]
    return root
