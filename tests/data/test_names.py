"""When two names are one to a person."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.data.names import as_pair, clash, class_name, name_key

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(TEXT)
def test_the_form_of_a_name_makes_no_difference(name: str) -> None:
    tensor_specs = {normalize("NFC", name), normalize("NFD", name)}
    assert len({class_name(form) for form in tensor_specs}) == 1
    assert len({name_key(form) for form in tensor_specs}) == 1
    assert class_name(class_name(name)) == class_name(name)


@given(st.text("abcXYZ09 _-", max_size=8))
def test_case_makes_no_difference(name: str) -> None:
    assert name_key(name) == name_key(name.upper()) == name_key(name.swapcase())


@given(st.lists(st.text("aB", min_size=1, max_size=3)))
def test_spaces_around_and_their_number_make_no_difference(words: list[str]) -> None:
    assert name_key(" ".join(words)) == name_key(f" {'  '.join(words)}\t")


def test_ascii_and_other_names_are_compared_alike() -> None:
    assert name_key("STRASSE") == name_key("stra\u00dfe")
    assert name_key("\u212a") == name_key("k")  # the sign of a kelvin


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["a", "b", "\u00e4"], None),
        (["a", "b", "A", "B"], ("a", "A")),
        (["a", "\u00e4", "a\u0308"], ("\u00e4", "a\u0308")),
        (["a", "a"], ("a", "a")),
        (["a b", "ab", " a  b", "c"], ("a b", " a  b")),
        (["\u00e4", "\u00e4\u00a0"], ("\u00e4", "\u00e4\u00a0")),
    ],
)
def test_the_first_clash_is_found(names: list[str], expected: tuple[str, str] | None) -> None:
    assert clash(names) == expected


def test_names_that_look_alike_are_told_apart() -> None:
    assert as_pair("\u00e4", "a\u0308") == r"'\xe4' and 'a\u0308' are the same in Unicode"
    assert as_pair("\u00c4", "a\u0308") == "'\u00c4' and 'a\u0308' differ only by case or spaces"
