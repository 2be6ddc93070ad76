"""m2sd predict"""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, printable, result


def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.", show_default=False)],
    top_k: Annotated[int, typer.Option("--top-k", help="How many classes to name for each.")] = 5,
    session: options.SessionChoice = None,
    run: options.Run = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    json: options.Json = False,
) -> None:
    """Label your own pictures with what the model has been taught.

    Examples:
      m2sd predict bird.jpg

      m2sd predict ./holiday --top-k 1

      m2sd predict bird.jpg --session 2 --json
    """
    from dataclasses import asdict

    from m2sd_cli import api

    predictions = api.predict(images, run=run, session=session, top_k=top_k, device=device, precision=precision)
    if json:
        document(
            {
                "predictions": [
                    {"image": as_text(each.path), "classes": [asdict(guess) for guess in each.guesses]}
                    for each in predictions
                ]
            }
        )
        return
    for each in predictions:
        guesses = ", ".join(f"{printable(guess.name)} {100 * guess.probability:.1f} %" for guess in each.guesses)
        result(f"{printable(str(each.path))}: {guesses}")
