"""What every command line here shares: help that is the docstring, checked numbers, errors of one line."""

import argparse
import contextlib
import errno
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from cli.files import UserError

OUT_OF_MEMORY = "out of memory; lower --batch-size or --size, or leave out --cache"
ALLOCATION = "|".join([  # how libraries say that no memory is left
    "out of memory", "(can't|cannot|could not|unable to|failed to) allocate", "not enough memory", "insufficient memory",
    "alloc(ation)?_failed", "bad_alloc", "allocation failed", "insufficient shared memory",
    "storage size calculation overflowed"])
Number = TypeVar("Number", int, float)
LONGEST_SIDE = 32_767  # px; OpenCV resizes and warps no larger pictures


class Terminated(KeyboardInterrupt):
    """SIGTERM: the signal that a scheduler sends before it takes the machine away. Scripts treat it like Ctrl-C."""


def command_line(main: Callable[[], None]) -> None:
    """Run a script's `main()`.

    A UserError, a system error or lack of memory becomes one message on stderr and exit code 2. Ctrl-C ends with 130, SIGTERM
    with 143. If the reader of the output has gone (`| head`), the script ends with 141 and no message.
    """
    if "WORLD_SIZE" not in os.environ:  # torchrun's processes wait for one another: SIGTERM must end all at once
        signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # show a character that the terminal cannot encode as \xb1, no error
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        _flush()
    except UserError as error:
        sys.exit(_print_error(error, code=2))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(_leave_quietly())
        if error.errno == errno.ENOMEM:
            sys.exit(_print_error(OUT_OF_MEMORY, code=2))
        sys.exit(_print_error(_words_of(error), code=2))
    except (MemoryError, RuntimeError, cv2_error()) as error:
        if not isinstance(error, MemoryError) and not re.search(ALLOCATION, str(error), re.I):
            raise
        sys.exit(_print_error(OUT_OF_MEMORY, code=2))
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        sys.exit(_print_error(str(stop) or "interrupted; finished files are kept", code))


def cv2_error() -> type[Exception]:
    """OpenCV's exception class; MemoryError if OpenCV is not loaded."""
    return sys.modules["cv2"].error if "cv2" in sys.modules else MemoryError


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"standard output: {error.strerror or error}") from None


def _nobody_reads() -> bool:
    """Whether standard output or error is a pipe whose reader has gone, as `| head` does."""
    if not hasattr(select, "poll"):
        return True
    for stream in (sys.stdout, sys.stderr):
        try:
            watched = select.poll()
            watched.register(stream.fileno(), select.POLLOUT)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0)):
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _leave_quietly() -> int:
    """Discard all further output; returns the exit code of a program that SIGPIPE ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())
    return 128 + signal.SIGPIPE


def _words_of(error: OSError) -> str:
    """The message of the system and, if it names any, the files that it is about."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    what = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(names)}: {what}" if names else f"{what} (the system names no file)"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _print_error(message: object, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    return code


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the docstring unchanged, and the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        unset = action.default is None or action.default is False or action.default is argparse.SUPPRESS
        shown = action.option_strings and not unset
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


def tool_parser(docstring: str | None, passes_on: bool = False) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring and its flags.

    Args:
        passes_on: whether unknown flags go to another script; then flags must be written out, since another script's
            --schedule would be taken for the beginning of --scheduler.
    """
    return argparse.ArgumentParser(description=docstring, formatter_class=HelpFormatter, allow_abbrev=not passes_on)


# --- flag types: argparse names a bad value and its flag, exit code 2 --------------------------------------------


def _checked(convert: Callable[[str], Number], accept: Callable[[Number], bool], wanted: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
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
side_length = _checked(int, lambda v: 0 < v <= LONGEST_SIDE, f"a length in 1..{LONGEST_SIDE} px")
positive_float = _checked(float, lambda v: 0 < v < float("inf"), "a number > 0")
nonnegative_float = _checked(float, lambda v: 0 <= v < float("inf"), "a number >= 0")
seed_number = _checked(int, lambda v: 0 <= v < 2**32, "a whole number in 0..4294967295")
share = _checked(float, lambda v: 0 <= v <= 1, "a number in 0..1")
class_count = _checked(int, lambda v: 2 <= v <= 255, "a number of classes in 2..255 (binary = 2)")
class_number = _checked(int, lambda v: 0 <= v < 255, "a class number in 0..254")


def shard(text: str) -> tuple[int, int]:
    """`I/N` -> (I, N), the I-th of N parts."""
    try:
        number, count = map(int, text.split("/"))
    except ValueError:
        number = count = 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, part I of N, such as 3/8")
    return number, count


def given_names(parser: argparse.ArgumentParser, args: argparse.Namespace, words: Sequence[str] | None = None) -> set[str]:
    """The names in `args`, of the parser's known flags, that `words` (the command line) set, to their defaults or not."""
    unset = object()
    marked, _ = parser.parse_known_args(words, namespace=argparse.Namespace(**dict.fromkeys(vars(args), unset)))
    return {name for name, value in vars(marked).items() if value is not unset}


def refuse_given(parser: argparse.ArgumentParser, args: argparse.Namespace, names: set[str], reason: str,
                 words: Sequence[str] | None = None) -> None:
    """Raise UserError if `words` (the command line) set one of the flags `names`, which may not be: `--flag: reason`."""
    for name in sorted(given_names(parser, args, words) & names):
        raise UserError(f"--{name.replace('_', '-')}: {reason}")


def class_or_none(text: str) -> int | None:
    """`none` -> None, else a class number."""
    return None if text.lower() == "none" else class_number(text)


def none_or_str(text: str) -> str | None:
    """`none` -> None."""
    return None if text.lower() == "none" else text
