"""Measures of a classifier against scikit-learn's."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score

from attnsweep.results.schema import JUDGED
from attnsweep.tasks.images import columns
from attnsweep.tasks.images.judging import Answers, in_top


def answers(logits: torch.Tensor, right: torch.Tensor) -> Answers:
    return Answers(0.0, logits.argmax(dim=1), right, in_top(logits, right))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("classes", "skew"), [(2, 1.0), (5, 2.0), (6, 0.0), (10, 1.5), (40, 3.0)])
def test_measures_are_those_of_scikit_learn(classes: int, skew: float, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    often = torch.arange(1, classes + 1, dtype=torch.float64) ** -skew  # some classes do not occur at all
    right = torch.multinomial(often, 60, replacement=True, generator=chance)
    logits = torch.randn(60, classes, generator=chance)
    logits[torch.arange(60), right] += 1
    given, found = logits.argmax(dim=1), answers(logits, right).measures("test")
    theirs = {"test_acc": (given == right).double().mean().item()}
    theirs["test_balanced_acc"] = balanced_accuracy_score(right, given)
    theirs["test_macro_f1"] = f1_score(right, given, average="macro")
    assert {name: found[name] for name in theirs} == pytest.approx(theirs)
    if classes > 5:
        labels = range(classes)
        assert found["test_top5_acc"] == pytest.approx(
            top_k_accuracy_score(right, logits, k=5, labels=labels)
        )
    else:
        assert found["test_top5_acc"] is None


def test_of_what_is_rare_accuracy_says_little_and_balanced_accuracy_much() -> None:
    right = torch.tensor([0] * 98 + [1] * 2)
    found = answers(torch.tensor([[1.0, 0.0]]).expand(100, -1), right).measures("val")
    assert found["val_acc"] == 0.98 and found["val_balanced_acc"] == 0.5
    assert found["val_macro_f1"] == pytest.approx((2 * 98 / 198 + 0) / 2)


def test_each_measure_is_a_column_of_trials_and_of_epochs() -> None:
    measures = answers(torch.eye(6), torch.arange(6)).measures("val")
    assert set(measures) - {"val_acc"} == {f"val_{name}" for name in columns.MEASURES}
    assert set(measures) <= {column.name for column in JUDGED}
