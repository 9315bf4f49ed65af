"""The tasks: how a model is fed, trained and judged."""

from attnsweep.tasks import images

TASKS = {"images": images}
