"""The table for LaTeX."""

from decimal import Decimal

from m2sd_cli.reports.latex import escape_latex, latex_table
from m2sd_cli.reports.method_rows import MethodRow, run_row
from m2sd_cli.reports.metrics import Figures, SessionFigures


def run(first: float, last: float, harmonic: float | None) -> Figures:
    sessions = [SessionFigures(0, 2, 4, first, first, None, None), SessionFigures(1, 3, 6, last, 5.0, 5.0, harmonic)]
    return Figures(sessions, (first + last) / 2, first - last, harmonic)


def cells(text: str) -> list[list[str]]:
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    return [line.removesuffix(" \\\\").split(" & ") for line in body.splitlines()]


def test_one_run_has_its_figures_and_several_have_mean_and_deviation() -> None:
    one = run_row("ours", [run(80.0, 60.0, None)])
    three = run_row("seeds", [run(80.0, 60.0, 50.0), run(82.0, 61.0, 52.0), run(84.0, 62.0, 54.0)])
    other = MethodRow("theirs", [Decimal("79.0"), None], Decimal("70.10"), None, None)
    assert cells(latex_table([other, one, three])) == [
        ["theirs", "79.0", "--", "70.10", "--", "--"],
        ["ours", "80.00", "60.00", "70.00", "20.00", "--"],
        [
            "seeds",
            r"$82.00 \pm 2.00$",
            r"$61.00 \pm 1.00$",
            r"$71.50 \pm 1.50$",
            r"$21.00 \pm 1.00$",
            r"$52.00 \pm 2.00$",
        ],
    ]


def test_names_cannot_be_commands() -> None:
    assert escape_latex("\\input{x} 5% a_b & #$^~<>\n") == (
        r"\textbackslash{}input\{x\} 5\% a\_b \& \#\$\textasciicircum{}\textasciitilde{}\textless{}\textgreater{} "
    )
