"""``archiver``: the group of all commands, and the one place where errors become exit codes."""

import gc
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from archiver import __version__
from archiver.cli import (
    backup,
    cat,
    cost,
    demo,
    doctor,
    expire,
    hold,
    init,
    keys,
    lifecycle,
    list_,
    ls,
    promote,
    restore,
    show,
    verify,
)
from archiver.cli.output import Output, Terminated, report
from archiver.cli.redaction import passphrase_option, refuse_secrets, withheld

EPILOG = """\b
Exit codes:
  0    done
  1    failed
  2    usage or configuration
  3    finished with warnings
  4    integrity or authenticity failure
  5    not found
  6    busy: a live process, or another run
  7    storage unreachable or refused
  130  interrupted
  143  terminated
"""


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            if sys.stderr.isatty():
                raise
            # click would print an empty line, which is to end that of the terminal's ^C, into a log as well.
            raise click.Abort from error


@click.group(
    cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="archiver %(version)s")
def archiver() -> None:
    """Consistent, encrypted backups of LMDB environments and the media files beside them.

    On the worst day: archiver restore latest --identity recovery-card.txt --to DIR
    """


for command in (
    init.init,
    doctor.doctor,
    backup.backup,
    list_.list_backups,
    show.show,
    ls.ls,
    cat.cat,
    restore.restore,
    verify.verify,
    promote.promote,
    hold.hold,
    hold.release,
    expire.expire,
    lifecycle.lifecycle,
    cost.cost,
    keys.keys,
    demo.demo,
):
    archiver.add_command(command)


def main() -> None:
    """Run the command line and exit. A service manager's SIGTERM ends a run as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    # The interpreter looks for garbage at its end, and would go through all that was imported: a fifth of a short run.
    gc.freeze()
    sys.exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code."""
    output = Output(json="--json" in arguments, withheld=withheld(arguments))
    try:
        refuse_secrets(arguments)
        result = archiver.main(arguments, prog_name="archiver", standalone_mode=False, obj=output)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        message = _usage_message(error, arguments)
        output.error(message[:1].lower() + message[1:].rstrip("."), _usage_hint(error), 2)
        return 2
    except click.Abort as error:
        return report(output, error.__cause__ or KeyboardInterrupt())
    except SystemExit as error:
        # So click ends after shell completion, and when the reader of our output went away, as `head` does.
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the one place where errors become exit codes
        return report(output, error)
    return result if isinstance(result, int) else 0


def _usage_message(error: click.ClickException, arguments: list[str]) -> str:
    message = error.format_message()
    option = passphrase_option(arguments)
    if option is not None and ("unexpected extra argument" in message or "does not take a value" in message):
        # What is too much may be the passphrase.
        return f"{option} takes no value: archiver asks for it"
    # click puts each choice of an option that is missing into a line of its own.
    return re.sub(r"\s*\n\s*", " ", message)


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"Run {context.command_path if context else 'archiver'} --help."
