"""What a task says of itself: one object, in the room of the task.

The object needs neither torch nor Ray, so that a plan is checked in a second; what trains and judges is
imported when `procedure` is asked for it.
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

Point = Mapping[str, object]  # what a sweep says of one trial


class DataSet(Protocol):
    """What is known of a data set before it is read."""

    @property
    def name(self) -> str: ...

    @property
    def is_folder(self) -> bool:
        """Whether it is a user's own, so that its contents and not its name identify it."""

    @property
    def train_size(self) -> int:
        """The examples of an epoch."""

    def checksum(self, data_dir: Path) -> str:
        """SHA-256 of its contents, or of what generates them. Raises UserError where files are missing."""

    def is_here(self, data_dir: Path) -> bool:
        """Whether a trial could read it now."""

    def ensure(self, data_dir: Path, progress: Callable[[int, int], None] = ...) -> None:
        """Makes its files be there, by a download where need be, and what follows from them on this machine.
        Raises UserError where that fails.
        """

    def __hash__(self) -> int:
        """Equal ones are read in the same way."""

    def prepare(
        self, data_dir: Path, *, workers: Callable[[], Executor], progress: Callable[[int, int], None]
    ) -> None:
        """Computes, on `workers`, what training reads and is not there yet; `progress(done, total)`."""


class Rehearsal(Protocol):
    """Tries a user's own model of one configuration before its training."""

    def __call__(self, model: "nn.Module", device: str) -> None:
        """Raises UserError where the model fails, or answers what cannot be learnt."""

    def __hash__(self) -> int:
        """Equal ones try the same."""


class Procedure(Protocol):
    """How the models of a task are fed, trained and judged; `config` is a trial's configuration in full."""

    ADAM: Mapping[str, Any]  # arguments of Adam and AdamW besides lr and weight decay

    @property
    def examine(self) -> Callable[..., dict[str, Any]] | None:
        """Like `judge`, but once, of the model of the selected epoch; None where there is no more to say."""

    @property
    def tune(self) -> "Callable[[nn.Module, Mapping[str, Any], Source | None], Tuning] | None":
        """Puts weights into a freshly initialised model and says what of it is trained; None where it is
        trained as it is. `source` is the text of a user's own model. Raises UserError where weights do not
        fit.
        """

    def load_for(
        self, config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None
    ) -> Any:
        """The data of a trial, with `train_size`: the examples of an epoch. Raises UserError where its
        checksum is another one than `sha256` (None: any).
        """

    def batches(
        self, data: Any, config: Mapping[str, Any], *, epoch: int, order: "torch.Generator"
    ) -> "Iterator[tuple[Any, ...]]":
        """The batches of one epoch, counted from 0."""

    def loss(self, model: Any, batch: Any, config: Mapping[str, Any]) -> "Tensor":
        """The mean loss over a batch, a scalar."""

    def learning_rate(self, config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""

    def clip_norm(self, config: Mapping[str, Any]) -> float | None:
        """The greatest norm of a step's gradient; None: it is taken as it is."""

    def averaging(self, config: Mapping[str, Any]) -> float | None:
        """The decay of the running average of the weights, which is judged in their place; None: there is
        none.
        """

    def judge(self, model: Any, data: Any, config: Mapping[str, Any]) -> dict[str, float]:
        """The columns of quality after an epoch, of a model in evaluation mode."""

    def quality(self, epoch: Mapping[str, Any]) -> float:
        """What selects an epoch, of its columns: the more the better. Raises KeyError where they lack it."""

    def example(self, config: Mapping[str, Any], batch: int) -> "tuple[Tensor, ...]":
        """Fixed inputs of one forward pass of `batch` examples."""

    def answer(
        self, model: Any, inputs: "tuple[Any, ...]", config: Mapping[str, Any]
    ) -> Callable[[], object]:
        """What is timed: a call that makes the model answer `inputs`, as whoever uses it would."""

    def tokens(self, config: Mapping[str, Any]) -> int | None:
        """The tokens that one answer is decoded into; None where it comes at once."""


@dataclass(frozen=True)
class Tuning:
    """What of a model is trained: parameters in groups, each with a factor on the learning rate, the first of
    them with that of the recipe; and parts that stay in evaluation mode.
    """

    groups: "Sequence[tuple[Sequence[nn.Parameter], float]]"
    frozen: "Sequence[nn.Module]" = ()


class Family(Protocol):
    """Models of a task that it does not list: those of a library."""

    def has(self, model: str) -> bool:
        """Whether that is the name of one, by its form."""

    def takes(self, model: str) -> Collection[str]:
        """The keys of a sweep that mean an argument of it. Raises UserError where there is no such model."""


@dataclass(frozen=True)
class ExternalTest:
    """A test of finished models that no trial waits for, as it takes minutes or a package that is optional:
    `attnsweep measure --NAME` runs it, and writes its column into the task's table.
    """

    name: str  # of the option
    column: str
    does: str  # as the command's help says it
    require: Callable[[], None]  # raises UserError where it cannot run here
    takes: Callable[[Point], bool]  # whether it is for the model of that row
    run: "Callable[[nn.Module, Mapping[str, Any]], float]"  # the score of a trained model


@dataclass(frozen=True)
class Task:
    """One way to train and judge, with the models, data sets, axes and columns that belong to it."""

    name: str
    numerics: int  # raised when a change to the package changes what a trial computes: trials then run again
    axes: Sequence[Axis]  # those that no other task has
    columns: Sequence[Column]  # likewise
    models: Mapping[str, Sequence[str]]  # to the axes of the architecture
    recipe: Sequence[str]  # the axes of training, which all models of the task have
    quality: str  # `acc`: val_acc selects, test_acc is reported
    quality_name: str  # as a figure says it
    default_dataset: str
    dataset_names: Sequence[str]  # as people write them, such as `folder:PATH`
    find: Callable[[str], DataSet | None]  # the data set of that name; None where it is none of this task
    complete: Callable[[Point, str], Config]  # of a point and its model; raises UserError where it cannot be
    cost: Callable[[Config], Cost | None]  # in closed form; None where there is none
    build: "Callable[[Config, Source | None], nn.Module]"  # with the text of a user's own model
    procedure: Callable[[], Procedure]
    of_data: Sequence[str] = ()  # axes that the data set decides
    own_models: bool = False  # whether FILE.py:CLASS may be trained by it
    family: Family | None = None  # whose models are trained by it, too
    rehearsal: "Callable[[Config], Rehearsal] | None" = None  # of such a model; it can be pickled and hashed
    check: Callable[[Trial], None] | None = None  # that what a planned trial begins with fits; or UserError
    own_recipe: Sequence[str] = ()  # the axes of training that such a model has besides the recipe
    privileged: Sequence[str] = ()  # models that see what no other does, and so are no choice
    draws: str = "plot"  # the command that draws its results
    revision: Callable[[Config], int] = lambda config: 0  # added to `numerics`: of trials that changed alone
    revised_models: Mapping[str, int] = field(default_factory=dict)  # built otherwise than at first: new ids
    before: Mapping[str, Config] = field(default_factory=dict)  # of axes that a model got later than others
    recipe_before: Config = field(default_factory=dict)  # likewise, of axes that the whole recipe got later
    dataset_of: Callable[[Config], DataSet] | None = None  # of a configuration that says more than its name
    data_columns: Callable[[DataSet], Config] = lambda dataset: {}  # the task's columns that are `of_data`
    cost_columns: Callable[[Config], Config] = lambda config: {}  # of cost, besides parameters and MACs
    # drops what is remembered of files: a plan reads them anew; its folder of data is given
    forget: Callable[[Path], None] = lambda data_dir: None
    about_data: Callable[[Sequence[Config]], tuple[list[str], list[str]]] | None = None  # of a plan's trials
    chance: Callable[[Config], tuple[float, int]] | None = None  # accuracy by chance, examples that validate
    external: Sequence[ExternalTest] = ()
    at_length: Callable[[Config, int], Config] | None = None  # the same architecture for so many tokens
    continued: "Callable[..., str] | None" = None  # what a trained model writes after a prompt
    tie_breaker: str = ""  # the column of which less decides between epochs of one quality; none: the first
