"""The axes that only image models have."""

from attnsweep.core.axes import KERNEL, SHARED, Axis, by_name

SIDES = "image: the image's side is passed as its side; published: its area is"
POOLINGS = "what a cnn's hidden layer reads: flatten, or null: all of the map; mean, max: one value a channel"
AXES = (
    Axis("unreadable", str, None, "skip: images of a folder that cannot be read are left out",
         choices=("skip",), architecture=False, before="skip"),  # the checksum says what was left out
    Axis("geometry", str, "image", SIDES, choices=("image", "published")),
    Axis("image_size", int, None, "side of the input image; settable for folder: data", "pixel", 1, 1024),
    Axis("channels", int, None, "channels of the input image", settable=False),
    Axis("patch_size", int, None, "side of a patch of the image or feature map", "pixel", 1, 1024),
    Axis("pooling", str, None, POOLINGS, choices=("flatten", "mean", "max"), before="flatten"),
    Axis("emb_dropout", float, 0.1, "dropout rate on the embedded patches", "", 0, 0.99, architecture=False),
    Axis("lr_gamma", float, 0.7, "factor on the learning rate after each epoch", "", 0, 1, open_low=True,
         architecture=False),
)  # fmt: skip
KNOWN = by_name(SHARED.values(), AXES) | KERNEL
