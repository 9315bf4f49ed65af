"""Names of settings: a model, and the fewest axes that tell rows apart."""

import json
from collections.abc import Sequence

import pandas as pd
from pandas.api.types import is_float_dtype

from attnsweep.answers.selection import SETTING, STATE, plain, require, setting_columns
from attnsweep.core.clean import clean
from attnsweep.core.columns import FLOAT
from attnsweep.core.labels import FOLLOW, fewest, model_name, shown
from attnsweep.results.schema import ARCHITECTURE, CONFIGURATION

FRACTIONS = tuple(column.name for column in CONFIGURATION if column.type == FLOAT)
CHECKSUMS = ("model_sha256", "data_sha256")
ARCHITECTURE_NAMES = {column.name for column in ARCHITECTURE}
RECIPE = [name for name in SETTING if name not in ARCHITECTURE_NAMES and name != "dataset"]
# short enough for a plot; the axes that people know best come first
ABBREVIATIONS = {
    "depth": "d{}", "dim": "dim{}", "heads": "h{}", "mlp_dim": "mlp{}", "dim_head": "dh{}",
    "patch_size": "p{}", "image_size": "{}px", "epochs": "ep{}", "batch_size": "b{}", "recipe": "{}",
}  # fmt: skip


def labels(frame: pd.DataFrame, *, short: bool = True) -> pd.Series:
    """A name for each row, `vit d4` or `vit depth=4`: its model, the fewest axes that tell rows apart, and
    the axes in which the training of models differs.
    """
    axes, models = distinguishing(frame), model_names(frame)
    names = [
        " ".join([models[row["model"]], *words(row, axes, short)])
        for _, row in as_typed(frame, axes).iterrows()
    ]
    return pd.Series(names, index=frame.index, dtype=object)


def model_names(frame: pd.DataFrame) -> dict[str, str]:
    """Short names of models: of `FILE.py:CLASS` the class, with as much of the path as makes it unique."""
    models = [str(model) for model in plain(frame)["model"].unique()]
    return {model: clean(short_name(model, models)) for model in models}


def short_name(model: str, models: Sequence[str]) -> str:
    """The shortest end of a model's name that is unique among `models`; see `model_names`."""
    cuts = (i + 1 for i in reversed(range(len(model))) if model[i] == "/")
    for end in (model_name(model), *(model[cut:] for cut in cuts)):
        if not any(f"/{other}".endswith((f"/{end}", f":{end}")) for other in models if other != model):
            return end
    return model


def distinguishing(frame: pd.DataFrame) -> list[str]:
    """The fewest of the varying axes that tell rows apart, architecture before training, well-known axes
    first and what follows from others last; and the axes in which the training of models differs.
    """
    frame = plain(frame)
    known = [*ABBREVIATIONS, *SETTING, *STATE]

    def rank(name: str) -> tuple[bool, bool, int]:
        return name in FOLLOW, name not in ARCHITECTURE_NAMES, known.index(name)

    kept = sorted(varying(frame), key=rank)
    needed = fewest(
        kept, reversed(kept), lambda names: len(frame[["model", "dataset", *names]].drop_duplicates())
    )
    return sorted({*needed, *recipe_differences(frame)}, key=rank)


def varying(frame: pd.DataFrame) -> list[str]:
    """The axes, and the state of data and code, that vary within a model on a data set, in their order."""
    require(frame, "model", "dataset")
    axes = [name for name in setting_columns(frame) if name not in ("model", "dataset")]
    values = plain(frame).groupby(["model", "dataset"], dropna=False)[axes].nunique(dropna=False)
    return [name for name in axes if (values[name] > 1).any()]


def recipe_differences(frame: pd.DataFrame) -> list[str]:
    """The axes of training whose values depend on the model; models without parameters are not trained."""
    frame = plain(frame)
    if "params" in frame:
        frame = frame[frame["params"].ne(0).fillna(True)]
    return [name for name in RECIPE if name in frame and differs(frame, name)]


def differs(frame: pd.DataFrame, axis: str) -> bool:
    """Whether the values of an axis on one data set depend on the model; models without it do not count."""
    if frame[axis].nunique() < 2:
        return False
    known = frame.dropna(subset=[axis])
    values = known.groupby(["dataset", "model"], dropna=False)[axis].agg(frozenset)
    return bool((values.groupby("dataset", dropna=False).nunique() > 1).any())


def as_typed(frame: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """The rows with numbers and checksums among these axes as text: fractions and checksums with as few
    digits as tell them apart, whole numbers whole, also where some are null.
    """
    typed = plain(frame)
    short = {name: shortened(frame[name]) for name in axes if name in (*FRACTIONS, *CHECKSUMS)}
    whole = [name for name in axes if name not in short and is_float_dtype(typed[name])]
    return typed.assign(**short, **{name: typed[name].map(shown, na_action="ignore") for name in whole})


def shortened(values: pd.Series) -> pd.Series:
    """The values as text with the fewest digits, four or more, that tell them apart; null stays."""
    distinct = [value for value in values.unique() if not pd.isna(value)]
    texts: dict[object, str] = {}
    for digits in range(4, 65):
        texts = {value: digits_of(value, digits) for value in distinct}
        if len(set(texts.values())) == len(texts):
            break
    return values.astype(object).map(texts)


def digits_of(value: object, digits: int) -> str:
    """A number with so many digits, or the beginning of a checksum."""
    return f"{value:.{min(digits, 17)}g}" if isinstance(value, float) else clean(value)[: 2 * digits]


def words(row: pd.Series, axes: list[str], short: bool = False) -> list[str]:
    """`depth=4`, or `d4` if short, for each of the axes that the row's model has."""
    forms = ABBREVIATIONS if short else {}
    known = {name: row[name] for name in axes if not pd.isna(row[name])}
    known |= arguments(known.pop("model_args", "{}"))
    return [
        forms[name].format(shown(value)) if name in forms else f"{clean(name)}={shown(value)}"
        for name, value in known.items()
    ]


def arguments(text: str) -> dict[str, object]:
    """The arguments of a user's own model; the raw text if it is not ours."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        known = None
    return known if isinstance(known, dict) else {"model_args": text}
