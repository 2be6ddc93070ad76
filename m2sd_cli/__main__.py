"""python -m m2sd_cli"""

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """The entry point `m2sd`. It imports the commands itself, so that Ctrl-C meanwhile leaves no traceback."""
    try:
        from m2sd_cli.cli.app import main as command

        command()
    except KeyboardInterrupt:
        print("m2sd: interrupted", file=sys.stderr, flush=True)
    except Exception as error:
        if not _came_of_interrupt(error):
            raise
        print("m2sd: interrupted", file=sys.stderr, flush=True)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: no traceback of Python's leaving either
            raise
    # Not sys.exit: if Ctrl-C came while C code was calling Python, as in an import, Python would end by the signal.
    os._exit(INTERRUPTED)


def _came_of_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C was made another error on its way, as where it meets the making of a class."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    main()
