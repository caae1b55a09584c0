"""The command `peerd`: parses, hands to one module a command, ends with the error's exit code.

Always: this file imports the standard library and click alone; what a command needs it imports
when it runs, because `peerd get` of a small file costs little more than its own start
(docs/adr/0008 has the profile, and why it is click and not typer).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click

from peerd.errors import PeerdError

INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGINT and 128 + SIGPIPE, as shells say them."""

Command = TypeVar("Command", bound=Callable[..., Any])


def with_json(command: Command) -> Command:
    words = "One JSON object on the last line of standard output."
    return click.option("--json", "as_json", is_flag=True, help=words)(command)


def with_socket(command: Command) -> Command:
    return click.option(
        "--socket",
        envvar="PEERD_SOCKET",
        show_envvar=True,
        metavar="PATH",
        help="The daemon's control socket; /run/peerd/peerd.sock for root, else in "
        "$XDG_RUNTIME_DIR, unless given.",
    )(command)


@click.group()
@click.version_option(
    package_name="peerd", message="%(prog)s %(version)s", help="Print the version and exit."
)
def peerd() -> None:
    """Peer-to-peer distribution of container images, AI models and large files.

    \b
    Example: peerd get https://example.org/model.bin -O model.bin
    """


@peerd.command()
@click.option(
    "--config",
    metavar="FILE",
    help="Settings in TOML; the keys are these flags with underscores. Flags win over PEERD_* "
    "variables, and those over the file.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Where identity and content are kept; /var/lib/peerd for root, else ~/.local/share/peerd, "
    "unless given.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    help="Where the overlay listens; repeatable. Loopback only unless given: "
    "/ip4/127.0.0.1/tcp/4010.",
)
@click.option(
    "--link-listen",
    metavar="HOST:PORT",
    help="Where links listen; the first --listen's host, one port above it, unless given.",
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    help="Where /metrics is for Prometheus; 127.0.0.1:4002 unless given, off for nowhere.",
)
@click.option(
    "--health-listen",
    metavar="HOST:PORT",
    help="Where /healthy is for probes; 127.0.0.1:4003 unless given, off for nowhere.",
)
@click.option(
    "--announce",
    multiple=True,
    metavar="ADDRESS",
    help="What others dial, where that is not what is listened on; repeatable. A multiaddr for "
    "the overlay, host:port for links.",
)
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="ADDRESS",
    help="A peer to find the others by: a multiaddr, or host:port, whose name is resolved again "
    "on every reconnect; repeatable.",
)
@click.option(
    "--zone",
    metavar="A/B/C",
    help="Where this machine is, outermost first: region/site/rack.",
)
@click.option(
    "--seed-peer/--no-seed-peer",
    default=None,
    help="Stay to read origins for others, and keep what was read.",
)
@click.option(
    "--scheduler/--no-scheduler",
    default=None,
    help="May be elected to advise all peers who gets what from whom; seed peers may, unless "
    "given. Downloads need none.",
)
@click.option(
    "--evaluator",
    metavar="NAME",
    help="An installed package's entry point in the group peerd.evaluator, which ranks parents "
    "where this peer leads; peerd's own unless given.",
)
@click.option("--name", metavar="NAME", help="What people call this peer, unless its host name.")
@click.option("--socket", metavar="PATH", help="Where the control socket is made.")
@click.option(
    "--socket-mode",
    metavar="OCTAL",
    help="Who may use it; 0600 unless given, 0660 for a group.",
)
@click.option("--socket-group", metavar="GROUP", help="The control socket's group.")
@click.option(
    "--upload-limit", metavar="SIZE", help="Bytes a second to other peers in all, like 100MiB."
)
@click.option(
    "--download-limit", metavar="SIZE", help="Bytes a second from peers and origins in all."
)
@click.option(
    "--disk-reserve",
    metavar="SIZE",
    help="Space that stays free: 10% (so unless given) or 5GiB.",
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="text or json, one line an event.")
@click.option(
    "--cluster",
    metavar="NAME",
    help="Peers of other clusters are refused; 'default' unless given.",
)
@click.option(
    "--fresh-s",
    metavar="DURATION",
    help="How long content without a digest passes without asking the origin again; 60s unless "
    "given.",
)
def join(**flags: Any) -> None:
    """Run a peer on this machine, until it is told to stop.

    It prints its peer id, its addresses and what to type on the next machine.

    \b
    Example: peerd join --listen /ip4/192.0.2.7/tcp/4010 \\
                        --bootstrap 192.0.2.1:4010
    """
    from peerd.cli import ephemeral
    from peerd.cli.process import daemon_command

    ephemeral.give_way(flags["data_dir"] or ephemeral.data_directory())
    command = daemon_command(
        {key: value for key, value in flags.items() if value not in (None, ())}
    )
    os.execv(command[0], command)


@peerd.command()
@click.argument("url")
@click.option(
    "-O",
    "--output",
    default=".",
    metavar="PATH",
    help="The file to write; a directory, like the working directory unless given, takes the "
    "URL's name; - is standard output.",
)
@click.option(
    "--digest", metavar="sha256:HEX", help="What the content must be; else it is refused."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'K: V'",
    help="A header for the origin; repeatable.",
)
@click.option("--timeout", metavar="DURATION", help="Give up after this long: 30s, 5m, 2h.")
@click.option(
    "--priority",
    type=click.IntRange(1, 6),
    default=6,
    show_default=True,
    help="Of several downloads those of 6 go first, those of 1 last, where a scheduler leads.",
)
@click.option(
    "--linger",
    metavar="DURATION",
    help="How long a daemon that was started for this may stay at most, in the background, to give "
    "others what it has; 60s unless given, or PEERD_LINGER_S; 0 to end with the download.",
)
@click.option("--no-progress", is_flag=True, help="Say nothing on standard error but errors.")
@with_json
@with_socket
def get(no_progress: bool, **typed: Any) -> None:
    """Download a URL through the swarm.

    Without a daemon, one runs for the length of the download; where other peers are, it lingers
    in the background until it gave as much as it took, or nobody asks any more. A download that
    was cut off goes on where it stopped.

    \b
    Example: peerd get https://example.org/model.bin -O model.bin
    """
    from peerd.cli.get import Wish, run

    run(Wish(progress=not no_progress, **typed))


@peerd.command()
@with_json
@with_socket
def status(as_json: bool, socket: str | None) -> None:
    """What this peer is, whom it knows, what it saved at the origin.

    \b
    Example: peerd status --json
    """
    from peerd.cli import show

    show.status(socket, as_json)


@peerd.command()
@with_json
@with_socket
def peers(as_json: bool, socket: str | None) -> None:
    """The other peers that this one knows.

    \b
    Example: peerd peers
    """
    from peerd.cli import show

    show.peers(socket, as_json)


@peerd.command()
@with_json
@with_socket
def scheduler(as_json: bool, socket: str | None) -> None:
    """Who advises the peers now, with which term, and who would be next.

    \b
    Example: peerd scheduler --json
    """
    from peerd.cli import show

    show.scheduler(socket, as_json)


@peerd.command()
@with_json
@with_socket
def tasks(as_json: bool, socket: str | None) -> None:
    """What this peer holds and is downloading.

    \b
    Example: peerd tasks
    """
    from peerd.cli import show

    show.tasks(socket, as_json)


@peerd.command()
@click.argument("task_id", metavar="TASK")
@with_json
@with_socket
def explain(task_id: str, as_json: bool, socket: str | None) -> None:
    """Why a download went as it did: who decided what, and what it waited for.

    Also of one that is over; any beginning of the task's id names it.

    \b
    Example: peerd explain 3f2a
    """
    from peerd.cli import show

    show.explain(task_id, socket, as_json)


@peerd.group()
def task() -> None:
    """Look at one task, or remove it; any beginning of its id names it.

    \b
    Example: peerd task show 3f2a
    """


@task.command("show")
@click.argument("task_id", metavar="TASK")
@with_json
@with_socket
def task_show(task_id: str, as_json: bool, socket: str | None) -> None:
    """Where each byte of a task came from, and who decided.

    \b
    Example: peerd task show 3f2a
    """
    from peerd.cli import show

    show.task_show(task_id, socket, as_json)


@task.command("rm")
@click.argument("task_id", metavar="TASK")
@with_json
@with_socket
def task_rm(task_id: str, as_json: bool, socket: str | None) -> None:
    """Remove a task from this peer's store; copies made of it stay.

    \b
    Example: peerd task rm 3f2a
    """
    from peerd.cli import show

    show.task_remove(task_id, socket, as_json)


@peerd.command()
@click.option(
    "--peers",
    "count",
    type=click.IntRange(1, 64),
    default=5,
    show_default=True,
    metavar="N",
    help="How many peers to run.",
)
@click.option(
    "--size",
    default="256MiB",
    show_default=True,
    metavar="SIZE",
    help="How large the file is that all of them get.",
)
@with_json
def demo(count: int, size: str, as_json: bool) -> None:
    """An origin and N peers on this machine, one file to all at once.

    \b
    Example: peerd demo --peers 5 --size 256MiB
    """
    from peerd.cli.demo import run

    run(count, size, as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits. An error is one sentence on standard error."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        with peerd.make_context("peerd", arguments) as context:
            peerd.invoke(context)
        sys.stdout.flush()
    except PeerdError as error:
        print(f"peerd: {error}", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `peerd tasks | head`: the interpreter must not find the pipe broken again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0
