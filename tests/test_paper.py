"""The paper's numbers are those it reports."""

from crossdomain import paper


def test_the_refresh_regains_what_the_abstract_says() -> None:
    assert (paper.value("math_damaged"), paper.value("math_refreshed")) == (57.66, 66.04)
    assert set(paper.REPORTED["source"]) == {paper.ABSTRACT, paper.SECONDARY}
