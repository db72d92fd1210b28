"""One world for all tests of this folder; drawing its questions takes longer than most tests."""

import pytest

from rlhf.data.helpdesk.world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World(0)
