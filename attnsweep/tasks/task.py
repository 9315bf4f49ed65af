"""The interface of a task: one object `TASK` in `tasks/NAME/__init__.py`.

Importing it needs neither torch nor Ray, so that a plan is checked in a second; the code that trains and
judges is imported by `procedure`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attnsweep.core.axes import Axis, Config
from attnsweep.core.columns import Column
from attnsweep.core.cost import Cost
from attnsweep.core.source import Source
from attnsweep.core.trial import Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Point = Mapping[str, object]  # a sweep's keys and values for one trial
Progress = Callable[[int, int], None]  # called with how much is done, of how much in all


class DataSet(Protocol):
    """What is known of a data set before it is read."""

    @property
    def name(self) -> str: ...

    @property
    def is_folder(self) -> bool:
        """Whether it is a user's own data, identified by its contents and not by its name."""

    @property
    def train_size(self) -> int:
        """The number of training examples in an epoch."""

    def checksum(self, data_dir: Path) -> str:
        """SHA-256 of its contents, or of their generator. Raises UserError where files are missing."""

    def is_here(self, data_dir: Path) -> bool:
        """Whether a trial could read it now."""

    def ensure(self, data_dir: Path, progress: Progress = ...) -> None:
        """Downloads missing files; decodes them where need be. Raises UserError where that fails."""

    def __hash__(self) -> int:
        """Equal data sets are read in the same way."""

    def prepare(self, data_dir: Path, *, workers: Callable[[], Executor], progress: Progress) -> None:
        """Computes on `workers` whatever training reads and is missing; calls `progress(done, total)`."""


class Ready:
    """What a data set does that is drawn, or read where it lies: nothing is fetched or prepared."""

    def is_here(self, data_dir: Path) -> bool:
        """Always."""
        return True

    def ensure(self, data_dir: Path, progress: Progress = lambda done, total: None) -> None:
        """There is nothing to download."""

    def prepare(self, data_dir: Path, *, workers: Callable[[], Executor], progress: Progress) -> None:
        """There is nothing to compute."""


class Rehearsal(Protocol):
    """A trial step with a user's own model of one configuration, before its training."""

    def __call__(self, model: "nn.Module", device: str) -> None:
        """Raises UserError where the model fails, or its output cannot be trained on."""

    def __hash__(self) -> int:
        """Equal rehearsals try the same."""


class Procedure(Protocol):
    """How the models of a task are fed, trained and judged. `config` is a trial's full configuration."""

    ADAM: Mapping[str, Any]  # arguments of Adam and AdamW besides lr and weight decay

    @property
    def examine(self) -> Callable[..., dict[str, Any]] | None:
        """Like `judge`, but once, on the model of the selected epoch; None where nothing is to be added."""

    @property
    def tune(self) -> "Callable[[nn.Module, Mapping[str, Any], Source | None], Tuning] | None":
        """Loads weights into a freshly initialised model and says which of it is trained; None where every
        model is trained as initialised. `source`: a user's code. Raises UserError where weights do not fit.
        """

    def load_for(
        self, config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None
    ) -> Any:
        """A trial's data, with `train_size`. Raises UserError where `sha256` (None: any) is not theirs."""

    def batches(
        self, data: Any, config: Mapping[str, Any], *, epoch: int, order: "torch.Generator"
    ) -> "Iterator[tuple[Any, ...]]":
        """The batches of one epoch, counted from 0."""

    def loss(self, model: Any, batch: Any, config: Mapping[str, Any]) -> "Tensor":
        """The mean loss over a batch, a scalar."""

    def learning_rate(self, config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""

    def judge(self, model: Any, data: Any, config: Mapping[str, Any]) -> dict[str, float]:
        """The columns of quality after an epoch. The model is in evaluation mode."""

    def example(self, config: Mapping[str, Any], batch: int) -> "tuple[Tensor, ...]":
        """Fixed inputs for a forward pass of `batch` examples."""

    def answer(
        self, model: Any, inputs: "tuple[Any, ...]", config: Mapping[str, Any]
    ) -> Callable[[], object]:
        """The call whose latency is measured: it runs the model on `inputs` as its users would."""


@dataclass(frozen=True)
class Tuning:
    """Which parameters of a model are trained: groups of them, each with a factor on the learning rate, which
    is 1 for the first; and modules that stay in evaluation mode.
    """

    groups: "Sequence[tuple[Sequence[nn.Parameter], float]]"
    frozen: "Sequence[nn.Module]" = ()


class Family(Protocol):
    """A library's models, which a task takes without listing them."""

    def has(self, model: str) -> bool:
        """Whether a name has the form of one of them."""

    def takes(self, model: str) -> Collection[str]:
        """The keys of a sweep that are a model's arguments. Raises UserError where there is no such model."""


@dataclass(frozen=True)
class ExternalTest:
    """A test of finished models that takes minutes, or an optional package, and so is no part of a trial:
    `attnsweep measure --NAME` runs it and writes its column into the task's table.
    """

    name: str  # of the option
    column: str
    does: str  # as the command's help says it
    require: Callable[[], None]  # raises UserError where it cannot run here
    takes: Callable[[Point], bool]  # whether it applies to the model of a row
    run: "Callable[[nn.Module, Mapping[str, Any]], float]"  # the score of a trained model


@dataclass(frozen=True)
class Task:
    """A way to train and judge models, with its models, data sets, axes and columns."""

    name: str
    numerics: int  # raised when the package changes what a trial computes: its trials then run again
    axes: Sequence[Axis]  # those that no other task has
    columns: Sequence[Column]  # likewise
    models: Mapping[str, Sequence[str]]  # the axes of each model's architecture, by its name
    recipe: Sequence[str]  # the axes of training, shared by all models of the task
    quality: str  # `acc`: val_acc selects, test_acc is reported
    quality_name: str  # in figures
    default_dataset: str
    dataset_names: Sequence[str]  # for messages, such as `folder:PATH`
    find: Callable[[str], DataSet | None]  # the data set of a name; None where the task has none of that name
    complete: Callable[[Point, str], Config]  # from a point and its model; raises UserError
    cost: Callable[[Config], Cost | None]  # in closed form; None where there is none
    build: "Callable[[Config, Source | None], nn.Module]"  # with the code of a user's own model
    procedure: Callable[[], Procedure]
    layers_repeat: int = 0  # number of layers of `depth` after which they repeat, for all models; 0: unknown
    of_data: Sequence[str] = ()  # the axes that the data set determines
    own_models: bool = False  # whether it trains FILE.py:CLASS
    family: Family | None = None  # models of libraries, which it trains too
    rehearsal: "Callable[[Config], Rehearsal] | None" = None  # for these two; picklable and hashable
    check: Callable[[Trial], None] | None = None  # raises UserError for a planned trial that could not begin
    own_recipe: Sequence[str] = ()  # further axes of training that a user's own model has
    privileged: Sequence[str] = ()  # models with information that others lack, which `pick` leaves out
    draws: str = "plot"  # the command that draws its results
    revision: Callable[[Config], int] = lambda config: 0  # added to `numerics` of trials that changed
    revised_models: Mapping[str, int] = field(default_factory=dict)  # built otherwise than once: new ids
    before: Mapping[str, Config] = field(default_factory=dict)  # `Axis.before`, where it depends on the model
    recipe_before: Config = field(default_factory=dict)  # likewise, for axes of the recipe
    dataset_of: Callable[[Config], DataSet] | None = None  # where more than its name determines the data set
    data_columns: Callable[[DataSet], Config] = lambda dataset: {}  # the values of columns with `of_data`
    cost_columns: Callable[[Config], Config] = lambda config: {}  # costs besides parameters and MACs
    # clears caches of files in a data folder, so that a new plan reads them anew
    forget: Callable[[Path], None] = lambda data_dir: None
    # the lines of a plan on the data of its trials, and its warnings
    about_data: Callable[[Sequence[Config]], tuple[list[str], list[str]]] | None = None
    chance: Callable[[Config], tuple[float, int]] | None = None  # on validation: accuracy by chance, examples
    external: Sequence[ExternalTest] = ()
    at_length: Callable[[Config, int], Config] | None = None  # the architecture for another number of tokens
    continued: "Callable[..., str] | None" = None  # the text that a trained model writes after a prompt
    tie_breaker: str = ""  # the column whose least value decides between equal epochs; empty: the first wins
    by_loss: bool = False  # whether a low loss selects where an epoch has no quality on validation
    # the norm to which gradients are clipped; None: they are not
    clip_norm: Callable[[Mapping[str, Any]], float | None] = lambda config: None
    # the decay of the weights' running average, which is judged in their place; None: no average
    averaging: Callable[[Mapping[str, Any]], float | None] = lambda config: None
    # the tokens that one call of `Procedure.answer` decodes; None where it is one forward pass
    decoded: Callable[[Mapping[str, Any]], int | None] = lambda config: None

    def selecting(self, epoch: Mapping[str, Any]) -> float:
        """What selects the epoch, more being better. Raises KeyError where the epoch was not judged."""
        column = f"val_{self.quality}"
        value = epoch.get(column) if self.by_loss else epoch[column]  # a null in a row of a table
        return float(-epoch["val_loss"] if value is None else value)
