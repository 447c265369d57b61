"""An engine process loads numba for a small model once it would have paid, beside its jobs, and uses it when it is there."""

from __future__ import annotations

from threading import Event

import pytest

from nostrain.learning import adoption
from nostrain.learning.adoption import WORTH_S, Adoption
from nostrain.sparseloco import compiled


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> compiled.Small:
    """As in a process of its own, with numba."""
    fresh = compiled.Small()
    for module in (compiled, adoption):
        monkeypatch.setattr(module, "SMALL", fresh)
    monkeypatch.setattr(adoption, "available", lambda: True)
    return fresh


def over(one: Adoption) -> None:
    """Wait until it has loaded."""
    assert one._loading is not None
    one._loading.join(60)
    assert not one._loading.is_alive()


def test_it_is_loaded_once_numpy_has_taken_as_long_and_used_when_it_is_there(small: compiled.Small) -> None:
    called, there = [], Event()

    def load() -> None:
        called.append(None)
        assert there.wait(60)

    one = Adoption(load)
    one.look()
    small.numpy_s = WORTH_S * 0.99
    one.look()
    assert called == []
    small.numpy_s = WORTH_S
    one.look()
    one.look()
    assert not small.adopted
    there.set()
    over(one)
    assert not small.adopted  # a job is done as a whole by the one or the other
    one.look()
    one.look()
    assert small.adopted
    assert called == [None]


def test_numba_that_does_not_work_is_said_once_and_numpy_goes_on(small: compiled.Small, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> None:
        raise ImportError("llvmlite is not what it was")

    one, small.numpy_s = Adoption(load), 2 * WORTH_S
    one.look()
    over(one)
    one.look()
    one.look()
    assert not small.adopted
    assert capsys.readouterr().err == "engine: numba cannot be used, numpy goes on: ImportError: llvmlite is not what it was\n"


def test_without_numba_nothing_is_loaded(small: compiled.Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "available", lambda: False)
    one, small.numpy_s = Adoption(lambda: pytest.fail("loaded")), 2 * WORTH_S
    one.look()
    one.look()
    assert one._loading is None
    assert not small.adopted
