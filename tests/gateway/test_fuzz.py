"""A little of what `make fuzz` does for as long as one likes; see fuzz.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.gateway import fuzz
from tests.gateway.fuzz_inputs import inputs


@pytest.mark.parametrize("seed", fuzz.seeds(), ids=lambda seed: seed[:12].hex())
def test_the_seeds_break_no_promise(seed: bytes) -> None:
    fuzz.Run("seeds", 1).one(seed)


@pytest.mark.parametrize("index", range(len(inputs)))
def test_generated_inputs_break_no_promise(index: int) -> None:
    run = fuzz.Run("hypothesis", 1)

    @settings(max_examples=300, deadline=None)
    @given(inputs[index])
    def feed(data: bytes) -> None:
        run.one(data)

    feed()
