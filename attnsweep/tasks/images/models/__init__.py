"""Image models, one architecture per file: functions from a configuration to a module."""

from attnsweep.tasks.images.models import vit_pytorch_parts  # noqa: F401 before those that import vit-pytorch
from attnsweep.tasks.images.models.cnn import cnn
from attnsweep.tasks.images.models.deepvit import deepvit
from attnsweep.tasks.images.models.hybrid import hybrid
from attnsweep.tasks.images.models.vit import vit
from attnsweep.tasks.images.models.zoo import MECHANISMS

MODELS = {"cnn": cnn, "vit": vit, "deepvit": deepvit, "hybrid": hybrid, **MECHANISMS}
