"""Every command of every document runs, and every output that a document shows is the one that its command prints."""

import re
from collections.abc import Callable

import pytest

from m2sd_cli.data.catalogue import DATA_SETS
from tests.documents.__main__ import replaced
from tests.documents.markdown import ROOT, Block, Document, documents
from tests.documents.play import Shown, play
from tests.survival.nursery import End

PLAYED = [each for each in documents() if any(block.runs for block in each.blocks)]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking beside threads, from Python 3.12
@pytest.mark.parametrize("document", PLAYED, ids=lambda document: document.name)
def test_a_document_does_what_it_says(document: Document, pair: Callable[..., End]) -> None:
    for shown in play(document, pair):
        assert shown.agrees(), f"{document.line_of(shown.block)}: `python -m tests.documents --write` mends it\n{shown}"


@pytest.mark.parametrize("document", PLAYED, ids=lambda document: document.name)
def test_a_loop_teaches_every_session_of_its_data_set(document: Document) -> None:
    for block in document.blocks:
        for listed in re.findall(r"^for session in ([\d ]+); do", block.text, re.MULTILINE):
            [data] = {name for name in DATA_SETS.names() if re.search(rf"--(data|recipe) {name}\b", block.text)}
            assert listed.split() == [str(number + 1) for number in range(DATA_SETS[data].sessions)]


def test_the_readme_opens_with_the_main_job_and_names_one_command_for_the_tests() -> None:
    blocks = [block for block in readme().blocks if block.language == "sh"]
    assert blocks[0].text.startswith("pip install -e . && m2sd demo\n")
    pattern = r"^pip install -e '\.\[test\]' && python3 -m pytest -n auto --cov=m2sd_cli$"  # .ci/run reads it
    assert sum(len(re.findall(pattern, block.text, re.MULTILINE)) for block in blocks) == 1


def readme(text: str | None = None) -> Document:
    path = ROOT / "README.md"
    return Document(path, path.read_text(encoding="utf-8") if text is None else text)


# ---- what is planted is found


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("m2sd recipes show nothing", "README.md:1: exit code 2"),
        ("m2sd sing", "there is no command"),
        ("pip install -e '.[music]'", "there is no extra music"),
        ("pip install numpy", "not this package"),
        ("python3 -m pytest tests/none", "there is no tests/none"),
        ("python3 -m http.server", "nothing is known of it"),
        ("m2sd recipes | grep nothing", "exit code 1"),
        ("true", "runs no command"),
    ],
)
def test_a_block_that_fails_is_found(block: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        list(play(readme(f"```sh\n{block}\n```\n")))


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("import m2sd_cli\n\nm2sd_cli.sing()", "AttributeError"),
        ("import m2sd_cli\n\nm2sd_cli.pretrain('demo', loudness=3)", "there is no option 'loudness'"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_script_that_fails_is_found(block: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        list(play(readme(f"```python\n{block}\n```\n")))


def test_a_file_that_is_shown_is_no_script() -> None:
    assert list(play(readme('```python\n# tiny.py\n1 / 0\n```\n```python\n"""Roots."""\n1 / 0\n```\n'))) == []


def test_a_block_may_be_left_out_with_a_reason() -> None:
    assert list(play(readme("<!-- not run: two GPUs -->\n```sh\nm2sd sing\n```\n"))) == []
    with pytest.raises(AssertionError, match="has no reason"):
        list(play(readme("<!-- not run: -->\n```sh\nm2sd sing\n```\n")))


def test_a_shell_does_what_it_does_at_a_terminal() -> None:
    text = "```sh\nexport M2SD_RUN=there\nm2sd recipes show cub200-resnet18 > mine.toml\ntest -s mine.toml\n```\n"
    output = "<!-- prints: m2sd data verify photos | head -1 -->\n```text\n```\n"
    [shown] = play(readme(text + output))
    assert "6 classes; " in shown.printed


def test_an_output_of_another_version_is_found() -> None:
    right = "<!-- prints: m2sd --version -->\n```text\n{}\n```\n"
    [old] = play(readme(right.format("0.0.1 of old")))
    assert not old.agrees()
    [now] = play(readme(right.format(old.printed.strip())))
    assert now.agrees()


@pytest.mark.parametrize(
    ("shown", "printed", "brief", "agrees"),
    [
        ("right 85.1 %", "right 84.0 %", False, True),
        ("right 85.1 %", "right 70.0 %", False, False),
        ("right 85.1 %", "right 70.0 %", True, True),
        ("right 85 of 90", "right 81 of 90", True, False),
        ("session 1: heron", "session 1: stork", True, False),
        ("in 37 s, loss", "in 1 min, loss", False, True),
        ("sha 5c8b1ea7977d", "sha d880be50a2af", False, True),
        ("at 2026-11-28 23:00", "at 2027-01-02 03:04", False, True),
        ("AVG   9.0  x", "AVG  10.0  x", False, True),
        ("a\nb", "a", True, False),
        ("a", "pretrain: epoch 3/12, loss 0.476\na", False, True),
        ("a", "pretrain takes about 4 min, distill after it about 5 min with its 8 epochs\na", False, True),
        ("a", "teaching: 30 of 50 sets of shots, 1/s, 26 s left\na", False, True),
        ("a", "pretrain takes a while\na", False, False),
    ],
)
def test_figures_of_the_machine_are_masked_and_nothing_else(
    shown: str, printed: str, brief: bool, agrees: bool
) -> None:
    block = Block(1, 0, 0, shown, "text", ())
    assert Shown(block, printed, brief).agrees() is agrees


def test_what_is_written_is_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    document = readme("<!-- prints: m2sd --version -->\n```text\nold\n```\nAfter.\n")
    [shown] = play(document)
    assert replaced(document, [(shown.block, shown.printed)]).endswith(f"```text\n{shown.printed}```\nAfter.\n")
