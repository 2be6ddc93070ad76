"""The program as `python -m m2sd_cli`."""

import os


def main() -> None:
    """Run m2sd. The commands are imported here, so that Ctrl-C meanwhile leaves no traceback."""
    from m2sd_cli.cli import interrupts
    from m2sd_cli.cli.streams import open_missing_streams

    open_missing_streams()
    interrupts.listen()
    try:
        from m2sd_cli.cli.app import main as command
        from m2sd_cli.distributed.torchrun import exit_process, is_distributed

        command()
    except KeyboardInterrupt:
        interrupts.say()
    except SystemExit as end:
        if end.code != interrupts.INTERRUPTED:
            interrupts.end()
            if is_distributed() and (end.code is None or isinstance(end.code, int)):
                exit_process(end.code or 0)
            raise
    # Not sys.exit: where Ctrl-C came while C code was calling Python, Python would end by the signal instead.
    os._exit(interrupts.INTERRUPTED)


if __name__ == "__main__":
    main()
