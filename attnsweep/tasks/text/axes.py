"""The axes that only models of text have."""

from attnsweep.core.axes import SHARED, Axis, by_name

ENCODING = "bytes: a token is a byte; bpe: byte pairs learnt from the training part (needs attnsweep[bpe])"
AXES = (
    Axis("context", int, 256, "tokens that the model sees at most, and is trained on at once", "token",
         2, 65536),
    Axis("encoding", str, "bytes", ENCODING, choices=("bytes", "bpe")),
    Axis("vocabulary", int, None, "tokens of bpe; null for bytes, of which there are 256", "", 257, 65536),
)  # fmt: skip
KNOWN = by_name(SHARED.values(), AXES)
