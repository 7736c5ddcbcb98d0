"""Which run is the baseline of which, by their names alone."""

import pytest

from sdx import InputError
from sdx.reporting.baselines import assign, matching
from sdx.reporting.finished import Part

Name = tuple[Part, ...]


def name(method: str = "stt", **parts: str) -> Name:
    """`__` stands for the dot."""
    return (("method", method), *((key.replace("__", "."), value) for key, value in parts.items()))


def trained(mixture: str, **parts: str) -> Name:
    return name(method__mixture=mixture, **parts)


def test_a_baseline_is_a_name_a_part_of_it_or_some_text():
    known = [trained(mixture, seed=seed) for mixture in ("src", "src+tgt") for seed in "12"]
    mixture = {"method.mixture"}
    assert matching("stt method.mixture=src seed=2", known) == {1: {"method", "method.mixture", "seed"}}
    for text in ("src", "mixture=src", "method.mixture=src"):
        assert matching(text, known) == {0: mixture, 1: mixture}
    assert matching("tgt", known) == {2: mixture, 3: mixture}
    assert matching("tgt seed=1", known) == {2: {"method.mixture", "seed"}}
    assert matching("seed=", known) == {number: {"seed"} for number in range(4)}
    assert matching("nothing", known) == {}
    with pytest.raises(InputError, match="baseline 'nothing' matches no run; give a part of one of these names: stt "):
        assign("nothing", known)


def test_the_method_may_differ_and_nothing_else():
    known = [
        trained("src", backbone="a", lang="de"),
        trained("src+tgt", backbone="a", lang="de"),
        name("sft", backbone="a", lang="de"),
        trained("src+tgt", backbone="b", lang="de"),
        trained("src+tgt", backbone="b", lang="th"),
    ]
    found, warnings = assign("src", known)
    assert found == {1: 0, 2: 0}
    assert warnings == [
        "baseline 'src': none with backbone=b for stt method.mixture=src+tgt backbone=b lang=de; "
        "none with backbone=b, lang=th for stt method.mixture=src+tgt backbone=b lang=th"
    ]


def test_what_the_text_is_about_may_differ_with_all_below_it():
    known = [
        trained("src", backbone="a", seed="1"),
        trained("src+tgt", backbone="a", seed="1"),
        trained("src", backbone="b", backbone__learning_rate="1", seed="1"),
        trained("src", backbone="b", backbone__learning_rate="2", seed="2"),
    ]
    found, warnings = assign("backbone=a", known)
    assert found == {2: 0}
    assert "none with seed=2 for" in warnings[0]


def test_of_several_the_one_with_most_in_common():
    known = [trained("src", lr=rate, seed="1") for rate in "12"] + [name("sft", lr="2", seed="1")]
    assert assign("stt", known)[0] == {2: 1}
    assert assign("src", known)[0] == {2: 1}


def test_another_seed_only_where_the_baseline_is_not_trained():
    known = [name("none", seed="1"), trained("src", seed="1"), trained("src+tgt", seed="2"), name("none", seed="3")]
    found, warnings = assign("none", known)
    assert (found, warnings) == ({1: 0, 2: 0}, [])
    found, warnings = assign("src", known)
    assert found == {0: 1}
    assert warnings == [
        "baseline 'src': none with seed=2 for stt method.mixture=src+tgt seed=2; none with seed=3 for none seed=3"
    ]


def test_a_full_name_is_for_all_and_two_places_are_equally_good():
    known = [trained("src", seed="1"), trained("src+tgt", seed="2")]
    assert assign("stt method.mixture=src seed=1", known)[0] == {1: 0}
    known = [(*trained("src"), ("in", "a")), (*trained("src"), ("in", "b")), trained("src+tgt")]
    assert assign("src", known)[0] == {2: 0}


def test_a_part_that_a_run_of_an_older_version_lacks():
    found, warnings = assign("src", [trained("src", new="1"), trained("src+tgt")])
    assert found == {}
    assert warnings == ["baseline 'src': none without new for stt method.mixture=src+tgt"]
