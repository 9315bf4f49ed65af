"""Garbage is not collected while modules are imported, and is as ever afterwards."""

import gc

import pytest

from attnsweep.__main__ import main
from attnsweep.core import collection


def test_collection_is_as_before_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), collection.paused():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_it_stays_off_for_who_turned_it_off() -> None:
    gc.disable()
    try:
        with collection.paused():
            assert not gc.isenabled()
        collection.go_on()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_it_goes_on_inside_a_pause_and_leaves_what_was_there_alone() -> None:
    before = gc.get_freeze_count()
    try:
        with collection.paused():
            collection.go_on()
            assert gc.isenabled() and gc.get_freeze_count() > before
            with collection.paused():  # as where a trial imports torch
                assert not gc.isenabled()
            assert gc.isenabled()
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_command_leaves_collection_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "nowhere"]) == 2 and "nowhere" in capsys.readouterr().err
    assert gc.isenabled()
