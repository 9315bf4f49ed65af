"""All that this package asks of Optuna, tested with Optuna 4 and 5: studies over Ray Tune's domains.

Most of it Optuna promises. Its sampler's `constant_liar` is experimental: without it a sampler that has
several trials under way may suggest nearly the same point twice, of which the second is drawn again.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError, reason
from attnsweep.results.store import Row
from attnsweep.space.grid import Point, is_domain

if TYPE_CHECKING:
    import optuna

AVOIDED = ("invalid", "diverged", "over budget")  # points like these are better avoided
EXCESS = "excess"  # where Optuna 4 finds the constraints of a trial


def samplers(
    *, seed: int, constrained: bool = False
) -> "tuple[optuna.samplers.BaseSampler, optuna.samplers.BaseSampler]":
    """Optuna's tree-structured Parzen estimator, which knows several objectives
    (https://doi.org/10.1145/3377930.3389817), and random search, for where it is stuck among known points.
    """
    kinds = imported().samplers
    more = {"constraints_func": excess_of} if constrained and not has_constraints() else {}
    try:  # pending trials count as bad: none twice
        parzen = kinds.TPESampler(seed=seed, constant_liar=True, **more)
    except TypeError:  # experimental since Optuna 2.8
        parzen = kinds.TPESampler(seed=seed, **more)
    return parzen, kinds.RandomSampler(seed=seed)


def imported() -> Any:
    """Optuna, without its remarks. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "search='optuna' needs Optuna; install it: pip install 'attnsweep[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def has_constraints() -> bool:
    """Whether trials have constraints of their own, since Optuna 5; before, the sampler asks for them."""
    return hasattr(imported().trial.Trial, "set_constraint")


def excess_of(trial: "optuna.trial.FrozenTrial") -> list[float]:
    """The constraints that `constrain` has noted."""
    return list(trial.user_attrs.get(EXCESS, ()))


def constrain(asked: "optuna.Trial", constraints: Mapping[str, float]) -> None:
    """Tells Optuna a suggestion's constraints: what is above 0 exceeds one, and is better avoided."""
    if not has_constraints():
        asked.set_user_attr(EXCESS, list(constraints.values()))
        return
    for key, value in constraints.items():
        asked.set_constraint(key, value)


def state(values: Sequence[float] | None, row: Row) -> Any:
    """Optuna's state: complete with values, pruned where points like it are better avoided, else failed."""
    states = imported().trial.TrialState
    if values is not None:
        return states.COMPLETE
    return states.PRUNED if row["status"] in AVOIDED else states.FAIL


def distribution(key: str, domain: Any) -> Any:
    """One of Ray Tune's domains as Optuna's distribution, over the same values (see `as_drawn`).

    Raises UserError where Optuna has none like it, or where it has no values.
    """
    from ray.tune.search import sample

    kinds, sampler = imported().distributions, domain.get_sampler()
    step = getattr(sampler, "q", None)
    shape = sampler.sampler if step else sampler
    log = isinstance(shape, sample.LogUniform)
    plain = isinstance(shape, sample.Uniform) or (log and step in (None, 1))
    if isinstance(domain, sample.Categorical):
        plain = plain and not any(map(is_domain, domain.categories))
    elif isinstance(domain, sample.Integer):
        plain = plain and step in (None, int(step or 1))
    if not plain:
        raise UserError(
            f"{key}: Optuna cannot search this domain of Ray Tune's; use tune.choice, uniform, quniform, "
            "loguniform, randint, qrandint or lograndint"
        )
    try:
        if isinstance(domain, sample.Categorical):
            return kinds.CategoricalDistribution(domain.categories)
        if isinstance(domain, sample.Float):
            low, high = (multiple(bound, step) for bound in (domain.lower, domain.upper))
            return kinds.FloatDistribution(low, high, log=log, step=step)
        low, high = whole_range(domain.lower, domain.upper, int(step or 1))
        return kinds.IntDistribution(low, high, log=log, step=int(step or 1))
    except ValueError as error:
        raise UserError(f"{key}: {reason(error)}") from error


def whole_range(lower: int, upper: int, step: int) -> tuple[int, int]:
    """The least and the greatest multiple of a step in Ray Tune's bounds, of step 1 below the upper one."""
    above = 1 if step == 1 else 0
    return -(-lower // step) * step, (upper - above) // step * step


def multiple(value: float, step: float | None) -> float:
    """The value as Optuna has it: a multiple of a step as it is written in decimals, 0.3 for 3 * 0.1."""
    if step is None:
        return value
    near = float(round(value / step) * Decimal(str(step)))
    return near if math.isclose(near, value) else value


def as_drawn(domain: Any, value: Any) -> Any:
    """A value of Optuna's as Ray Tune would draw it, to the last bit: 3 * 0.1 for 0.3."""
    step = getattr(domain.get_sampler(), "q", None)
    return round(value / step) * step if step and isinstance(value, float) else value


def plausible(kind: Any, value: Any) -> Any:
    """A value of the distribution that the point of a row may have had: the row's own `value` if it is one.

    Else None if that is among the choices, from which a value may have been derived; else any, since the
    row's model does not take the axis.
    """
    choices = getattr(kind, "choices", ())
    if value in choices or (value is not None and not choices):
        return value
    if choices:
        return None if None in choices else choices[0]
    return kind.low


def contains(space: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    """Whether a point lies in the space, which is distributions by name."""
    trial = imported().trial
    try:
        trial.create_trial(state=trial.TrialState.FAIL, params=dict(params), distributions=dict(space))
    except (ValueError, TypeError):
        return False
    return True


def ended_trial(
    space: Mapping[str, Any],
    params: Point,
    values: Sequence[float] | None,
    row: Row,
    constraints: Mapping[str, float],
) -> "optuna.trial.FrozenTrial":
    """A trial of the results for `Study.add_trial`."""
    create_trial = imported().trial.create_trial
    if has_constraints():
        more: dict[str, Any] = {"constraints": dict(constraints)}
    else:
        more = {"system_attrs": {"constraints": list(constraints.values())}} if constraints else {}
    return create_trial(state=state(values, row), params=params, distributions=space, values=values, **more)
