"""Every figure of a sentence is the one in the file of figures."""

from decimal import Decimal

import pytest

from m2sd_cli.recipes import recipe_names
from m2sd_cli.recipes.results import read_results
from tests.documents.markdown import ROOT, Document, documents
from tests.documents.sentences import evaluate, missing_sentences, sentences_of, stray_figures, written


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_the_figures_of_sentences_are_those_of_the_file(document: Document) -> None:
    assert missing_sentences(document) == [], "the document and m2sd_cli/recipes/results.toml disagree"
    assert stray_figures(document) == [], "put them into m2sd_cli/recipes/results.toml"


@pytest.mark.parametrize("sentence", read_results()["sentences"], ids=lambda sentence: sentence["words"][:40])
def test_a_number_that_no_table_has_names_its_recipe(sentence: dict[str, object]) -> None:
    assert sentence["document"] in {document.name for document in documents()}
    figures = sentence["figures"]
    assert isinstance(figures, list)
    if any(" | " not in str(figure) for figure in figures):
        recipe = str(sentence["recipe"])
        assert recipe in recipe_names() or recipe.startswith("none: ")


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("few-differences | `m2sd` | HM", "3.3"),
        ("few | share", "0.05"),
        ("margin | all images, 16 epochs, 48 classes, 432 | 0.5 | AVG", "55.7"),
        ("few | `mixup`, mixup alone | AVG - few | `cutmix`, CutMix alone | AVG", "1.7"),
        ("recipes | cifar100-resnet20-cpu | base_session", "73.6"),
        ("published cifar100 ResNet-20 | best | AVG", "64.31"),
        ("speed | stage 1, images/s | EPYC", "1,560"),
        (Decimal("0.10"), "0.10"),
    ],
)
def test_a_figure_is_looked_up(name: object, figure: str) -> None:
    assert str(evaluate(name)) == figure


def test_a_cell_that_is_not_once_in_its_table_is_refused() -> None:
    with pytest.raises(ValueError, match="in 0 rows"):
        evaluate("few | `mixup` | AVG")
    with pytest.raises(ValueError, match="in 5 rows"):
        evaluate("margin | `few-100`, 48 base classes, 432 held out | AVG")


GAINS = (
    "All of M2SD gains 0.0 AVG and 3.3 HM with 50 images\n  a class, by `debiased`. With all images, by `quadratic`, "
    "it costs 1.3 AVG with one seed and 2.0 with another; HM rises by 2.0 and falls by 1.4."
)


@pytest.mark.parametrize(
    ("text", "stray"),
    [
        (GAINS, []),
        (GAINS.replace("3.3", "3.4"), ["0.0", "3.4", "1.3", "2.0", "2.0", "1.4"]),
        ("It was 99.9.", ["99.9"]),
        ("HM was 3.3.", ["3.3"]),  # a figure of the file, in a sentence that is not
        ("It does 2,560 images/s.", ["2,560"]),
        ("With `--scale 99.9` and 3 images, from Python 3.11 on, [here](a-99.9.md), doi 10.1609/aaai.v38i4.28129.", []),
        ("Sections 3.1 to 3.3; from 0.2.0 on.".lower(), []),
    ],
)
def test_a_figure_that_is_not_in_the_file_is_found(text: str, stray: list[str]) -> None:
    assert stray_figures(Document(ROOT / "README.md", text)) == stray


def test_a_sentence_that_lies_is_found() -> None:
    readme = next(document for document in documents() if document.name == "README.md")
    for wrong in (readme.text.replace("1,560", "2,560"), readme.text.replace("[we measured]", "[we saw]")):
        [missing] = missing_sentences(Document(readme.path, wrong))
        assert missing in [written(each) for each in sentences_of(readme)]
