"""A model for sweeps that are cut off: its trials last, and leave the processor to others."""

import os
import time
from pathlib import Path

from torch import Tensor, nn

NAP_S = 0.25


class Naps(nn.Module):
    """Class scores by two linear layers. Each training step is a nap and a line in the file $DIARY."""

    def __init__(self, *, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        flat = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, 16))
        self.layers = nn.Sequential(flat, nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) > 2 and "DIARY" in os.environ:  # the plan tries a step on two
            with Path(os.environ["DIARY"]).open("a") as diary:
                diary.write("a step\n")
            time.sleep(NAP_S)
        return self.layers(images)
