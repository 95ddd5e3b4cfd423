"""Parameters as they are written."""

import pytest

from crossdomain import parameters
from crossdomain.profiles import ProfileError


@pytest.mark.parametrize("seeds", ["", "a", "-1", "0 0", "1.5", "٣"])
def test_seeds_that_are_none_are_refused_with_what_is_expected(seeds: str) -> None:
    with pytest.raises(ProfileError, match="different integers of 0 or more"):
        parameters.parse_seeds(seeds)


def test_seeds_are_read_from_words_or_a_number() -> None:
    assert parameters.parse_seeds("0, 2 1") == [0, 2, 1]
    assert parameters.parse_seeds(3) == [3]
