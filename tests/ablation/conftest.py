"""The little data that tables are trained on here."""

from collections.abc import Iterator

import pytest

from tests.helpers import train_on_less

LITTLE = (30, 10)  # of the demo 60 images, two steps an epoch, and every tenth test image


@pytest.fixture(scope="module", autouse=True)
def _little_data() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        train_on_less(patch, *LITTLE)
        yield
