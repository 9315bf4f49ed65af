"""What a model of text must beat: the bits per byte of its test part by counting, and by compressing.

    uniform, unigram            every byte alike; by how often it came in training
    5-gram, Kneser-Ney          each byte by the four before it, interpolated down to none: Kneser and Ney
                                (https://doi.org/10.1109/ICASSP.1995.479394), as Chen and Goodman 1998 have
                                it in section 2.7
    gzip, xz                    what the test part adds to the compressed training part, and by itself

`python -m attnsweep.tasks.text.baselines text:PATH ...` prints them as a Markdown table.
"""

import gzip
import lzma
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.tasks.text import corpus

ORDER = 5  # the bytes of the longest n-gram: five fit into an int64 beside their sign
BYTE = 256
Compressor = Callable[[bytes], bytes]
COMPRESSORS: Mapping[str, Compressor] = {
    "gzip": lambda text: gzip.compress(text, compresslevel=9, mtime=0),
    "xz": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
}


def bits_per_byte(name: str) -> dict[str, float]:
    """The bits per byte of a text's test part, `text:python` or `text:PATH`, by each baseline.

    Raises UserError as `corpus.parts` does.
    """
    text = corpus.find(name)
    if text is None:
        raise UserError(f"{name!r} is no text; use text:PATH, or text:python")
    parts = corpus.parts(text.name)
    train, test = parts["train"], parts["test"]
    counted = {
        f"{order}-gram, Kneser-Ney" if order > 1 else "unigram": KneserNey(train, order)
        for order in (1, ORDER)
    }
    return {
        "uniform": 8.0,
        **{label: model.bits(test) / len(b"".join(test)) for label, model in counted.items()},
        **{label: after(train, test, compress) for label, compress in COMPRESSORS.items()},
        **{f"{label}, test part alone": after([], test, one) for label, one in COMPRESSORS.items()},
    }


def after(train: Sequence[bytes], test: Sequence[bytes], compress: Compressor) -> float:
    """The bits per byte that `test` adds to what `train` is compressed to."""
    before, text = b"".join(train), b"".join(test)
    known = len(compress(before)) if before else 0
    return 8 * (len(compress(before + text)) - known) / len(text)


class KneserNey:
    """Bytes by the `order` - 1 bytes before them, as often as they came, less a discount that goes to what
    the shorter n-grams say: p(w | u) = max(c(u w) - D, 0) / c(u .) + D N(u .) / c(u .) p(w | u'), u' being u
    without its first byte. Of all n-grams but the longest c counts the different bytes that come before; D is
    n1 / (n1 + 2 n2) of its order, n1 being 1 where nothing came once, so that what never came has a share;
    beyond a single byte all are alike. No n-gram reaches into another block.
    """

    def __init__(self, blocks: Sequence[bytes], order: int) -> None:
        grams = {n: np.unique(np.concatenate([codes(one, n) for one in blocks]), return_counts=True)
                 for n in range(1, order + 1)}  # fmt: skip
        self.orders = []
        for n in range(1, order + 1):
            known, count = grams[n]
            if n < order:  # by how many bytes it was preceded
                ends = grams[n + 1][0] % BYTE**n
                known, count = np.unique(ends, return_counts=True)
            self.orders.append(Order(known, count.astype(float)))

    def bits(self, blocks: Sequence[bytes]) -> float:
        """What blocks cost, in bits."""
        return -sum(float(np.log2(self.probabilities(block)).sum()) for block in blocks)

    def probabilities(self, block: bytes) -> np.ndarray:
        """Of each byte of a block, given those before it in the block (n,)."""
        likely = np.full(len(block), 1 / BYTE)
        for n, order in enumerate(self.orders, 1):
            likely[n - 1 :] = order.refined(codes(block, n), likely[n - 1 :])
        return likely


class Order:
    """The n-grams of one length: their codes, ascending, and how often each counts."""

    def __init__(self, known: np.ndarray, count: np.ndarray) -> None:
        self.known, self.count = known, count
        once, twice = max(1, (count == 1).sum()), (count == 2).sum()
        self.discount = once / (once + 2 * twice)
        self.contexts, first = np.unique(known // BYTE, return_index=True)
        self.total = np.add.reduceat(count, first)
        self.kinds = np.diff(np.append(first, len(known)))

    def refined(self, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """The probabilities of the last bytes of n-grams (n,), given those by the n-gram without its first
        byte; these where what comes before was never seen.
        """
        count = lookup(self.known, self.count, grams)
        total = lookup(self.contexts, self.total, grams // BYTE)
        kinds = lookup(self.contexts, self.kinds, grams // BYTE)
        seen, total = total > 0, np.maximum(total, 1)
        own = np.maximum(count - self.discount, 0) / total
        return np.where(seen, own + self.discount * kinds / total * shorter, shorter)


def codes(block: bytes, n: int) -> np.ndarray:
    """A block's n-grams (len - n + 1,), each as the number whose digits to the base 256 are its bytes."""
    digits = np.frombuffer(block, np.uint8).astype(np.int64)
    count = max(0, len(digits) - n + 1)
    return sum((digits[i : i + count] * BYTE ** (n - 1 - i) for i in range(n)), np.zeros(count, np.int64))


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted keys, 0 where there is none; `keys` ascend."""
    if not keys.size:
        return np.zeros(len(wanted))
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def table(names: Sequence[str]) -> str:
    """A Markdown table: a line per baseline, a column per text."""
    found = {name: bits_per_byte(name) for name in names}
    labels = next(iter(found.values()))
    rows = [["bits per byte", *names], ["---", *["---:"] * len(names)]]
    rows += [[label, *(f"{found[name][label]:.3f}" for name in names)] for label in labels]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Prints the table of the texts that are named."""
    print(table(sys.argv[1:] or [corpus.PYTHON]))


if __name__ == "__main__":
    sys.exit(exit_status(main))
