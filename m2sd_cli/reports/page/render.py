"""The page as HTML, from the template and the style sheet of this folder."""

from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from m2sd_cli.reading import printable
from m2sd_cli.reports.figures.svg import CSS
from m2sd_cli.reports.page.content import Page

HERE: Final = Path(__file__).parent


def render(page: Page) -> str:
    """Render a page. Texts are escaped, but for the style sheets and for figures, which escape their own texts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["figure"] = lambda value: "-" if value is None else f"{value:.1f}"
    style = Markup(CSS.read_text(encoding="utf-8") + (HERE / "report.css").read_text(encoding="utf-8"))  # noqa: S704
    figures = {each.name: Markup(each.svg) for each in page.figures if each.svg is not None}  # noqa: S704
    return environment.get_template("report.html.j2").render(page=page, style=style, svg=figures)
