"""The command line: exit codes, and errors as messages."""

import io
import logging
import os
import signal
import sys
import threading

import click

from onnxrd.cli.commands import onnxrd
from onnxrd.cli.console import stderr
from onnxrd.errors import OnnxrdError

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run and exit: 0 done, 1 failed, 2 usage, 3 no gain, 4 verification of the output failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    logging.basicConfig(format="%(name)s: %(message)s")
    quiet = "-q" in arguments or "--quiet" in arguments
    least = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
    logging.getLogger("onnxrd").setLevel(least)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no more than Ctrl-C does
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack what we say, such as →
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        onnxrd.main(arguments, prog_name="onnxrd", standalone_mode=False)
        print(end="", flush=True)
    except OnnxrdError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written.", INTERRUPTED)
    except BrokenPipeError:  # whoever reads the result has seen enough
        _forget_output()
        sys.exit(1)
    except OSError as error:  # stdout is a full disk, for example
        _forget_output()
        _fail(str(error), 1)
    except MemoryError:
        _fail("out of memory. Are the shapes in the model what they should be?", 1)
    except Exception as error:  # a fault of ours, or of a file that no check has seen through
        logging.getLogger("onnxrd").debug("unexpected", exc_info=True)
        _fail(
            f"unexpected {type(error).__name__}: {str(error)[:200]}. If the model and the data are "
            "sound, please report this with what --verbose shows.",
            1,
        )


def _forget_output() -> None:
    """Drop what stdout does not take, or the interpreter tries again and exits with 120."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    stderr().print(f"error: {message}", style="bold red", soft_wrap=True)
    sys.exit(code)
