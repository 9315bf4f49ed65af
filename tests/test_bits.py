"""A bit per example: packed as one value of a row, through the tables and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsweep.core.bits import packed, unpacked
from attnsweep.results.loading import load
from attnsweep.results.store import Store


@pytest.mark.slow
@given(st.lists(st.booleans(), max_size=50))
def test_what_was_packed_is_unpacked(flags):
    assert unpacked(packed(np.array(flags, bool)), len(flags)).tolist() == flags


def test_ten_thousand_examples_take_1250_bytes_the_first_in_the_highest_bit():
    assert len(packed(np.ones(10_000, bool))) == 1250
    assert packed(np.array([True, False, False])) == b"\x80"


@pytest.mark.parametrize("count", [0, 1, 7, 17, 25])
def test_bytes_of_another_number_of_examples_are_refused(count):
    with pytest.raises(ValueError, match="are not those of"):
        unpacked(b"\xff\xff\xff", count)


@pytest.mark.slow
def test_bits_stay_as_they_are_through_writing_and_compaction(tmp_path: Path):
    chance = np.random.default_rng(0)
    written = {f"{i:012x}": packed(chance.random(1_797) < 0.9) for i in range(30)}
    store = Store(tmp_path)
    for trial_id, bits in written.items():
        row = {"trial_id": trial_id, "status": "done", "test_examples": 1_797, "test_right": bits}
        store.write_trial(row)
    store.compact()
    assert len(store.paths("trials")) == 1
    frame = load(tmp_path).set_index("trial_id")
    assert frame["test_right"].to_dict() == written
