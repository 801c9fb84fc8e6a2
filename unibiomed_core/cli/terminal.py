"""What people see on a terminal: results on standard output; progress, notes and errors on standard error.

Nothing here interprets markup in other people's text, and lines are not broken where no terminal is attached.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from unibiomed_core.errors import UniBiomedError

EXIT_ERROR, EXIT_PARTLY, EXIT_STOPPED = 2, 3, 130
"""Nothing was written; written, but some of the targets are unknown to the model; stopped by Ctrl-C."""

Step = Callable[[int, int, float | None], None]
"""Called with what is done, the total, and the seconds left where they can be told."""

SECONDS_BETWEEN_LINES = 2.0
"""Where no terminal is attached, progress is told at most this often, apart from its first and last step."""


def out() -> Console:
    """Standard output; made anew so that redirection is respected."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A result."""
    out().print(Text(text))


def note(text: str) -> None:
    """Something beside the result."""
    err().print(Text(text))


def show_error(title: str, *, found: str = "", expected: str = "", action: str = "") -> None:
    """One red block: what it is, what was found, what was expected, what to do."""
    rows = [("found", found), ("expected", expected), ("action", action)]
    body = Text("\n").join([Text.assemble((f"{name}: ", "bold"), words) for name, words in rows if words])
    console = err()
    if console.is_terminal:
        console.print(Panel(body, title=escape(title), title_align="left", border_style="red"), soft_wrap=False)
    else:
        console.print(Text(f"Error: {title}", "bold red"))
        console.print(body)


def show_unexpected(error: Exception) -> None:
    """An error that nobody foresaw, in one line; a broken torchvision is told with its cure."""
    from unibiomed_core.diagnostics import TORCHVISION_CURE

    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    words = f"{type(error).__name__}: {line}"[:300]
    if "torchvision" in str(error):
        show_error("Broken torchvision", found=words, action=TORCHVISION_CURE)
    else:
        action = "Set UNIBIOMED_DEBUG=1 to see the details, and report it with the output of 'unibiomed info'."
        show_error("Something went wrong", found=words, action=action)


_held: ContextVar[contextlib.ExitStack] = ContextVar("what a command holds until it ends")


def hold(resource: contextlib.AbstractContextManager[object]) -> None:
    """Enter something for the rest of the command; it is left when the command ends, whatever way."""
    _held.get().enter_context(resource)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Every error leaves a command as one block of text and an exit code; the traceback only for developers."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with contextlib.ExitStack() as stack:
                _held.set(stack)
                command(*args, **kwargs)
        except UniBiomedError as error:
            action = " ".join(filter(None, (error.action, error.command)))
            show_error(error.title, found=error.found, expected=error.expected, action=action)
            raise typer.Exit(EXIT_ERROR) from None
        except KeyboardInterrupt:
            show_error("Stopped", found="nothing was finished, so nothing was written")
            raise typer.Exit(EXIT_STOPPED) from None
        except typer.Exit:
            raise
        except Exception as error:  # whatever is left is a fault of ours or of the installation
            if os.environ.get("UNIBIOMED_DEBUG") == "1":
                traceback.print_exc()
            show_unexpected(error)
            raise typer.Exit(EXIT_ERROR) from None

    return run


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """A short wait with its reason; silent where no terminal is attached."""
    console = err()
    with console.status(escape(text)) if console.is_terminal else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def steps(noun: str) -> Iterator[Step]:
    """Progress of a long run: a bar on a terminal, else now and then a plain line.

    Args:
        noun: What is counted, e.g. "slices".
    """
    console = err()
    if not console.is_terminal:
        last = -SECONDS_BETWEEN_LINES

        def line(done: int, total: int, seconds_left: float | None) -> None:
            nonlocal last
            now = time.monotonic()
            if done in (0, 1, total) or now - last >= SECONDS_BETWEEN_LINES:
                last = now
                note(f"{noun} {done}/{total}{_left(seconds_left)}")

        yield line
        return
    columns = (
        TextColumn("{task.description} {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(noun, total=0, left="")

        def draw(done: int, total: int, seconds_left: float | None) -> None:
            bar.update(task, completed=done, total=total, left=_left(seconds_left).lstrip(", "))

        yield draw


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f", about {seconds:.0f} s left"
    return f", about {seconds // 60:.0f} min {seconds % 60:02.0f} s left"
