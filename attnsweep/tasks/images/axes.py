"""The axes that only image models have."""

from attnsweep.core.axes import KERNEL, SHARED, Axis, by_name

SIDES = "image: the image's side is passed as its side; published: its area is"
POOLINGS = "what a cnn's hidden layer reads: flatten, or null: all of the map; mean, max: one value a channel"
AUGMENTS = (
    "crop_flip: shifted by up to an eighth and mirrored, where a mirror image shows the same (no digits); "
    "randaugment, trivialaugment: that, then two operations of medium strength, or one of any"
)
NORMALISE = (
    "what mean and deviation of pixels are taken out: those of the training images, or of published weights"
)
AXES = (
    Axis("unreadable", str, None, "skip: images of one's own that cannot be read are left out",
         choices=("skip",), architecture=False, before="skip"),  # the checksum says what was left out
    Axis("geometry", str, "image", SIDES, choices=("image", "published")),
    Axis("image_size", int, None, "side of the input image, to which images are resized", "pixel", 1, 1024),
    Axis("channels", int, None, "channels of the input image", settable=False),
    Axis("patch_size", int, None, "side of a patch of the image or feature map", "pixel", 1, 1024),
    Axis("pooling", str, None, POOLINGS, choices=("flatten", "mean", "max"), before="flatten"),
    Axis("emb_dropout", float, 0.1, "dropout rate on the embedded patches", "", 0, 0.99, architecture=False),
    Axis("drop_path", float, 0.0, "rate at which a residual branch is left out, of the last block; it rises "
         "evenly from 0 at the first", "", 0, 0.99, architecture=False, before=0.0),
    Axis("recipe", str, "published", "what the axes of training are that a sweep does not name",
         choices=("published", "modern"), architecture=False, shorthand=True, before="published"),
    Axis("augment", str, "none", AUGMENTS, choices=("none", "crop_flip", "randaugment", "trivialaugment"),
         architecture=False, before="none"),
    Axis("random_erasing", float, 0.0, "rate of training images of which a rectangle becomes noise", "", 0, 1,
         architecture=False, before=0.0),
    Axis("mixup", float, 0.0, "alpha of the beta distribution by which two images are blended; 0: none are",
         "", 0, 100, architecture=False, before=0.0),
    Axis("cutmix", float, 0.0, "alpha of the beta distribution by which a square of another image is pasted; "
         "0: none is; beside mixup each image has one of both", "", 0, 100, architecture=False, before=0.0),
    Axis("schedule", str, "step", "of the learning rate after its warm-up: step, times lr_gamma after each "
         "epoch; cosine, to 0 at the end; constant", choices=("step", "cosine", "constant"),
         architecture=False, before="step"),
    Axis("lr_gamma", float, 0.7, "factor on the learning rate after each epoch, by schedule step", "", 0, 1,
         open_low=True, architecture=False),
    Axis("warmup_epochs", float, 0.0, "epochs in which the learning rate rises evenly to lr", "epoch", 0, 1e6,
         architecture=False, before=0.0),
    Axis("clip_norm", float, None, "greatest norm of a step's gradient; null: it is taken as it is",
         "", 0, 1e6, open_low=True, architecture=False),
    Axis("ema", float, 0.0, "highest decay of the running average of the weights, which is judged and kept "
         "in their place; 0: they are judged themselves", "", 0, 0.999999, architecture=False, before=0.0),
    Axis("weights", str, None, "what training begins with: pretrained, those that a library publishes, or a "
         "file; null: a fresh initialisation", architecture=False, names_file=True),
    Axis("weights_sha256", str, None, "SHA-256 of that file; of pretrained weights of their address",
         architecture=False, settable=False),
    Axis("freeze", str, "none", "backbone: all but the head stays as the weights are",
         choices=("none", "backbone"), architecture=False, before="none"),
    Axis("backbone_lr", float, 1.0, "factor on the learning rate of all but the head", "", 0, 1e6,
         open_low=True, architecture=False, before=1.0),
    Axis("normalise", str, "data", NORMALISE, choices=("data", "imagenet", "inception", "clip", "unit"),
         architecture=False, before="data"),
)  # fmt: skip
KNOWN = by_name(SHARED.values(), AXES) | KERNEL
