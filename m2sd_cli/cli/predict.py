"""The command `m2sd predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, note, result
from m2sd_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2sd_cli.inference.prediction import Prediction


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of pictures.", show_default=False, readable=False)
    ],
    top_k: Annotated[int, typer.Option("--top-k", help="How many classes to name for each.")] = 5,
    session: options.SessionChoice = None,
    classifier: options.Classifier = None,
    run: options.Run = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
) -> None:
    """Label your own pictures with what the model has been taught.

    A picture is unknown if it looks less like any class taught so far than 95 % of the base pictures that were held out
    of training; the likeliest classes follow in brackets.

    Examples:
      m2sd predict bird.jpg
      m2sd predict ./holiday --top-k 1
      m2sd predict bird.jpg --session 2 --json
    """
    from dataclasses import asdict

    import m2sd_cli

    skipped: list[dict[str, str]] = []

    def named(predictions: "Iterator[Prediction]") -> "Iterator[Prediction]":
        """Yield the predictions of readable pictures, and say which pictures are left out, once one can be read."""
        answered = False
        for each in predictions:
            if each.skipped is not None:
                skipped.append({"image": as_text(each.path), "reason": each.skipped})
                if answered:
                    say_left_out(skipped[-1])
                continue
            if not answered:
                answered = True
                for bad in skipped:
                    say_left_out(bad)
                if not each.calibrated:
                    note(
                        "probabilities are not calibrated, no picture is called unknown: no base pictures were held out"
                    )
            yield each
        if skipped and not answered:
            more = f"; and {len(skipped) - 1} more" if len(skipped) > 1 else ""
            first = skipped[0]
            raise DataError(f"no picture can be read: {first['image']}: {first['reason']}{more}")

    def say_left_out(bad: "dict[str, str]") -> None:
        note(f"left out: {bad['image']}: {bad['reason']}")

    predictions = named(
        m2sd_cli.predict(
            images,
            run=run,
            session=session,
            top_k=top_k,
            device=device,
            precision=precision,
            skip_bad=skip_bad,
            classifier=classifier,
        )
    )
    if json:
        answers = [
            {
                "image": as_text(each.path),
                "unknown": each.unknown,
                "score": each.score,
                "calibrated": each.calibrated,
                "classes": [asdict(guess) for guess in each.guesses],
            }
            for each in predictions
        ]
        document({"predictions": answers, "skipped": skipped})
        return
    for each in predictions:
        guesses = ", ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in each.guesses)
        result(f"{each.path}: unknown ({guesses})" if each.unknown else f"{each.path}: {guesses}")
