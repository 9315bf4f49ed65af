"""Which examples a trial got right, as one bit each in a single value of a row."""

import numpy as np


def packed(right: np.ndarray) -> bytes:
    """Packs flags (n,) into bytes, the first in the highest bit, padded with zeros: 10,000 in 1,250 bytes."""
    return np.packbits(right.astype(bool)).tobytes()


def unpacked(bits: bytes, count: int) -> np.ndarray:
    """The inverse of `packed`: flags (count,). Raises ValueError where the bytes do not hold as many."""
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))
    if len(bits) != -(-count // 8) or flags[count:].any():
        raise ValueError(f"{len(bits)} bytes are not those of {count} flags")
    return flags[:count].astype(bool)
