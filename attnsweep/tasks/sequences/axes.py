"""The axes that only sequence models have."""

from attnsweep.core.axes import SHARED, Axis, by_name

AXES = (
    Axis("length", int, 16, "longest sequence in training, and the one judged", "symbol", 1, 1024),
    Axis("encoder_depth", int, None, "blocks of the encoder; null: depth", "", 1, 1000),
    Axis("decoder_depth", int, None, "blocks of the decoder; null: depth", "", 1, 1000),
    Axis("beam", int, 1, "beams of decoding when judged; 1 is greedy", "", 1, 64),
)
KNOWN = by_name(SHARED.values(), AXES)
