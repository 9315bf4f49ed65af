"""Which examples a trial answered right: a bit for each, as one value of a row."""

import numpy as np


def packed(right: np.ndarray) -> bytes:
    """The flags (n,) as bytes, eight to one, the first flag in the highest bit; the last byte is filled up
    with zeros. 10,000 examples take 1,250 bytes.
    """
    return np.packbits(right.astype(bool)).tobytes()


def unpacked(bits: bytes, count: int) -> np.ndarray:
    """The first `count` flags of what `packed` gave, (count,) bool.

    Raises ValueError where the bytes are not those of so many flags.
    """
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))
    if len(bits) != -(-count // 8) or flags[count:].any():
        raise ValueError(f"{len(bits)} bytes are not those of {count} flags")
    return flags[:count].astype(bool)
