import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnsweep.core.deployment import Deployment, Subject
from attnsweep.core.errors import UserError
from attnsweep.measuring import measure
from attnsweep.space.trials import cost_of, make_trial
from attnsweep.tasks.counting import count
from attnsweep.tasks.registry import TASKS, build, resolve
from attnsweep.tasks.sequences import training as sequences
from attnsweep.tasks.sequences.decoding import Writer
from attnsweep.tasks.sequences.problems import BEGIN, END, FIRST, PAD
from attnsweep.training.trial import Options, run

TINY = dict(model="transformer", depth=1, heads=2, dim=16, mlp_dim=16, length=6, dropout=0.0)
CONFIG = resolve(TINY)


def refusal(**point: object) -> str:
    with pytest.raises(UserError) as caught:
        resolve({**TINY, **point})
    return str(caught.value)


def data(**point: object) -> sequences.Data:
    return sequences.load_for(resolve({**TINY, **point}), "nowhere", "cpu")


class Oracle:
    """Stands for a model that has learnt to reverse; its `wrong` answers begin with the wrong digit."""

    def __init__(self, *, wrong: int = 0) -> None:
        self.wrong = wrong

    def answers(self, questions: Tensor) -> Tensor:
        rows = [[*(token for token in row[::-1] if token != PAD), END] for row in questions.tolist()]
        for row in rows[: self.wrong]:
            row[0] = FIRST + (row[0] - FIRST + 1) % 10
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    known = Oracle()

    def decode(model: Any, questions: Tensor, config: Any, *, longest: int) -> Tensor:
        return known.answers(questions)

    monkeypatch.setattr(sequences, "decode", decode)
    return known


# What is refused


def test_heads_that_do_not_divide_dim_are_answered_with_the_nearest_that_do() -> None:
    assert refusal(heads=5) == "heads=5 does not divide dim=16; use 1, 2, 4, 8"


def test_heads_of_a_width_of_their_own_need_not_divide_dim() -> None:
    assert resolve({**TINY, "heads": 5, "dim_head": 3})["dim_head"] == 3
    assert resolve({**TINY, "heads": 8})["dim_head"] == 2


def test_the_width_of_a_head_that_is_named_is_the_trial_where_it_is_the_papers() -> None:
    named, derived, other = (resolve({**TINY, **point}) for point in ({"dim_head": 8}, {}, {"dim_head": 7}))
    assert named == derived != other


def test_images_and_sequences_are_not_mixed() -> None:
    assert refusal(dataset="mnist") == (
        "dataset='mnist' is for images and model='transformer' for sequences; "
        "use dataset='reverse', or model='cnn'"
    )
    assert refusal(model="vit", dataset="sort").startswith("dataset='sort' is for sequences and model='vit'")
    assert refusal(task="images") == "task='images' has no model transformer; leave task out"


def test_the_learning_rate_is_the_papers_at_the_papers_height() -> None:
    config = resolve({**TINY, "lr": (512 * 4000) ** -0.5, "warmup_steps": 4000})
    paper = [512**-0.5 * min(step**-0.5, step * 4000**-1.5) for step in range(1, 10_000)]  # equation 3
    ours = [sequences.learning_rate(config, step, 313) for step in range(len(paper))]
    assert ours == pytest.approx(paper)
    assert max(ours) == pytest.approx(config["lr"])


# What is learnt from


def test_the_decoder_sees_the_answer_shifted_behind_its_beginning() -> None:
    answers = torch.tensor([[5, 6, END, PAD], [7, END, PAD, PAD]])
    assert sequences.begun(answers).tolist() == [[BEGIN, 5, 6, END], [BEGIN, 7, END, PAD]]


def test_an_epoch_has_every_example_once_without_columns_of_padding() -> None:
    batches = list(sequences.batches(data(), {"batch_size": 3_000}, epoch=0, order=torch.Generator()))
    assert [len(questions) for questions, _ in batches] == [3_000] * 6 + [2_000]
    few = next(sequences.batches(data(), {"batch_size": 2}, epoch=0, order=torch.Generator()))
    assert all((tokens != PAD).any(dim=0).all() for tokens in few)


def test_padding_changes_no_loss() -> None:
    torch.manual_seed(0)
    model, config = build(CONFIG).eval(), {**CONFIG, "label_smoothing": 0.1}
    questions, answers = torch.tensor([[5, 6, 7]]), torch.tensor([[7, 6, 5, END]])
    wider = (nn.functional.pad(questions, (0, 3)), nn.functional.pad(answers, (0, 2)))
    bare, padded = (sequences.loss(model, batch, config) for batch in ((questions, answers), wider))
    torch.testing.assert_close(bare, padded)


def test_the_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_the_vocabulary() -> None:
    def uniform(questions: Tensor, seen: Tensor) -> Tensor:
        return torch.zeros(*seen.shape, 13)

    batch = next(sequences.batches(data(), {"batch_size": 8}, epoch=0, order=torch.Generator()))
    assert sequences.loss(uniform, batch, {"label_smoothing": 0.1}).item() == pytest.approx(math.log(13))  # type: ignore[arg-type]


# How it is judged


def test_a_model_that_is_always_right_has_an_accuracy_of_one(oracle: Oracle) -> None:
    model: Any = build(CONFIG).eval()
    judged = sequences.judge(model, data(), CONFIG)
    accuracies = {key: value for key, value in judged.items() if "acc" in key}
    assert len(accuracies) == 5 and set(accuracies.values()) == {1.0}


def test_one_wrong_token_costs_the_whole_answer_and_one_token(oracle: Oracle) -> None:
    oracle.wrong = 5  # in each batch of 250
    model: Any = build(CONFIG).eval()
    whole, tokens, right = sequences.judge_part(model, data().held_out["test"], CONFIG)
    assert whole == 1 - 5 / 250 and right.double().mean() == whole
    assert tokens == pytest.approx(1 - 5 / (250 * 7))


def test_the_selected_model_is_examined_at_twice_and_four_times_the_length(oracle: Oracle) -> None:
    model: Any = build(CONFIG).eval()
    assert {len(data().held_out[part][0][0]) for part in ("long", "longer")} == {12, 24}
    assert set(sequences.examine(model, data(), CONFIG).values()) == {1.0}
    oracle.wrong = 5  # in each batch of 250
    examined = sequences.examine(model, data(), CONFIG)
    assert examined == {
        "test_token_acc_long": pytest.approx(1 - 5 / (250 * 13)),
        "test_acc_longer": 1 - 5 / 250,
        "test_token_acc_longer": pytest.approx(1 - 5 / (250 * 25)),
    }


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_is_as_long_as_was_asked_whatever_is_decoded(beams: int) -> None:
    torch.manual_seed(0)
    model: Any = build(CONFIG).eval()
    questions = data().held_out["val"][0][:20]
    assert sequences.decode(model, questions, {"beam": beams}, longest=9).shape == (20, 9)


# What it costs


@pytest.mark.parametrize(
    "point",
    [{}, {"norm": "post", "positions": "learned"}, {"attention": "explicit"}, {"heads": 3, "dim_head": 5}],
)
def test_the_closed_form_is_what_is_counted(point: dict[str, object]) -> None:
    config = resolve({**TINY, **point})
    assert count(build(config), *sequences.example(config, 1)) == cost_of(config)


def test_what_is_timed_decodes_every_token_of_a_longest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, write = [], Writer.write

    def noted(writer: Writer, tokens: Tensor) -> None:
        steps.append(tuple(tokens.shape))
        write(writer, tokens)

    monkeypatch.setattr(Writer, "write", noted)
    model: Any = build(CONFIG).eval()
    sequences.answer(model, sequences.example(CONFIG, 2), {**CONFIG, "beam": 3})()
    assert steps == [(6,)] * 7 and TASKS["sequences"].decoded(CONFIG) == 7


@pytest.mark.slow
def test_a_measured_transformer_has_a_latency_per_token() -> None:
    subject = Subject("0123456789ab", CONFIG)
    row = measure.measure_architecture(subject, Deployment(), device="cpu", reference_ms=0.5)
    assert row["latency_ms_per_token"] == pytest.approx(row["latency_ms_p50"] / 7)
    assert (row["params"], row["length"]) == (cost_of(CONFIG).params, 6)


# Whole trials


def last_row(**point: Any) -> dict[str, Any]:
    trial = make_trial(resolve({**TINY, "epochs": 1, **point}), Path("nowhere"))
    event = list(run(trial, Options(data_dir="nowhere")))[-1]
    assert event["status"] == "done", event["row"].get("error")
    return event["row"]


@pytest.mark.slow
def test_the_same_trial_twice_gives_the_same_numbers_to_the_bit() -> None:
    first, second = (last_row(dropout=0.1, batch_size=500) for _ in range(2))
    assert all(first[key] == second[key] for key in ("train_loss", "val_loss", "val_token_acc"))
    assert first["test_token_acc_longer"] == second["test_token_acc_longer"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["reverse", "sort", "addition", "dyck"])
def test_every_problem_is_learnt_better_than_by_chance(dataset: str) -> None:
    row = last_row(dataset=dataset, length=3, dim=32, warmup_steps=100)
    assert row["val_token_acc"] > 0.5, "guessing a symbol is right once in ten, or in eight"


@pytest.mark.slow
def test_most_short_sequences_are_reversed_without_a_fault() -> None:
    row = last_row(length=4, dim=32, heads=2, mlp_dim=64, epochs=3, warmup_steps=100, batch_size=128)
    assert row["test_acc"] > 0.6, "of whole answers; 0.92 to 0.94 by three seeds"
