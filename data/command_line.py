"""What every command line here shares: help that is the docstring, checked numbers, errors of one line."""

import argparse
import os
import signal
import sys
from pathlib import Path

from data.files import UserError


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a scheduler sends before it takes the machine away; to be treated like Ctrl-C."""


def command_line(main):
    """Run a script's `main()`.

    A UserError, or what the machine refuses, becomes one message on stderr and exit code 2; Ctrl-C and SIGTERM end with 130
    and 143.
    """
    if "WORLD_SIZE" not in os.environ:  # torchrun's processes wait for one another, so that they must die at once
        signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except UserError as error:
        sys.exit(_print_error(error, code=2))
    except OSError as error:
        sys.exit(_print_error(f"{error.filename or 'a file'}: {error.strerror or error}", code=2))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error):
            raise
        sys.exit(_print_error("out of memory; lower --batch-size or --size, or leave out --cache", code=2))
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        sys.exit(_print_error(str(stop) or "interrupted; finished files are kept", code))


def _terminate(number, frame):
    raise Terminated


def _print_error(message, code):
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    return code


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The docstring as it stands, and the default of every flag that has one."""

    def _get_help_string(self, action):
        unset = action.default is None or action.default is False or action.default is argparse.SUPPRESS
        shown = action.option_strings and not unset
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


def tool_parser(docstring):
    """A parser whose --help is the script's docstring and its flags."""
    return argparse.ArgumentParser(description=docstring, formatter_class=HelpFormatter)


# --- types: a bad value is named with its flag by argparse, exit code 2 -------------------------------------------


def _checked(convert, accept, wanted):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


positive_int = _checked(int, lambda v: v > 0, "a whole number > 0")
nonnegative_int = _checked(int, lambda v: v >= 0, "a whole number >= 0")
positive_float = _checked(float, lambda v: 0 < v < float("inf"), "a number > 0")
nonnegative_float = _checked(float, lambda v: 0 <= v < float("inf"), "a number >= 0")
seed_number = _checked(int, lambda v: 0 <= v < 2**32, "a whole number in 0..4294967295")
share = _checked(float, lambda v: 0 <= v <= 1, "a number in 0..1")
class_count = _checked(int, lambda v: 2 <= v <= 255, "a number of classes in 2..255 (binary = 2)")


class_number = _checked(int, lambda v: 0 <= v < 255, "a class number in 0..254")


def shard(text):
    """`I/N` -> (I, N), the I-th of N parts."""
    try:
        number, count = map(int, text.split("/"))
    except ValueError:
        number = count = 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, part I of N, such as 3/8")
    return number, count


def class_or_none(text):
    """`none` -> None, else a class number."""
    return None if text.lower() == "none" else class_number(text)


def none_or_str(text):
    """`none` -> None."""
    return None if text.lower() == "none" else text
