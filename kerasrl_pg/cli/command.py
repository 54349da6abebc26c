"""Finding a subcommand, reading its flags, and saying in a sentence what went wrong.

Exit codes: 0 done; 1 it could not be done, and the sentence says why; 2 the command was not understood; 130 and 143
ended by Ctrl-C and SIGTERM.
"""

import importlib
import re
import sys
import textwrap

from absl import app, flags, logging

# What each does, and the module that does it: its docstring is the help, `define` its flags, `run` the rest.
COMMANDS = {
    "train": "Train an agent, evaluate it, save it and export it.",
    "tune": "Search settings that learn better.",
    "evaluate": "Evaluate saved agents: environments, seeds, a table, JSON.",
    "export": "Export a saved agent as a SavedModel.",
    "serve": "Serve exported policies by gRPC and REST.",
    "play": "Watch a saved agent in a window.",
    "video": "Film a saved agent, as a GIF or MP4.",
    "plot": "Draw the learning curves of runs.",
    "report": "Write one HTML file that says how a run did.",
    "lab": "Draw the laboratory's pictures of the notes' claims.",
    "list": "List agents, presets, environments, heads.",
    "info": "Say what a file or folder holds.",
    "completion": "Print what makes the shell complete commands and flags.",
}
WIDTH = 100


class Stopped(Exception):
    """A signal ended the work, and what was done is saved.

    Args:
        number: Of the signal.
        sentence: What is saved, and how to go on.
    """

    def __init__(self, number, sentence):
        super().__init__(sentence)
        self.number = number


def module_of(name):
    """The module of a subcommand."""
    return importlib.import_module(f"kerasrl_pg.cli.{name}")


def flags_of(name):
    """The flags of a subcommand, as absl's `FlagValues`."""
    values = flags.FlagValues()
    module_of(name).define(values)
    flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=values)
    flags.DEFINE_bool("debug", False, "Show the traceback of what goes wrong.", flag_values=values)
    return values


def call(arguments):
    """Runs one subcommand.

    Args:
        arguments: Strings, the first of them its name.

    Raises:
        absl.app.UsageError: If they are not understood.
        Exception: Whatever the work raises.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "-help", "help"):
        print(overview())
        return
    if name == "--version":
        from kerasrl_pg import __version__

        print(__version__)
        return
    if name not in COMMANDS:
        from kerasrl_pg.checks import misspelt

        meant = misspelt(name, COMMANDS)
        raise app.UsageError(
            f"Expected one command of {', '.join(COMMANDS)}. Received: {name}."
            + (f" Did you mean {meant}?" if meant else "")
        )
    values = flags_of(name)
    try:
        positional = values([name, *rest])[1:]
    except flags.Error as error:
        raise app.UsageError(f"{error} `kerasrl-pg {name} --help` shows all flags.") from error
    if values.help:
        print(help_of(name, values))
        return
    logging.set_verbosity(logging.ERROR)
    module_of(name).run(values, positional)


def main():
    """Entry point of the `kerasrl-pg` command."""
    arguments = sys.argv[1:]
    try:
        call(arguments)
    except app.UsageError as error:
        _end(2, f"{error}\n\n`kerasrl-pg --help` lists the commands.")
    except Stopped as error:
        _end(128 + error.number, str(error))
    except KeyboardInterrupt:
        _end(130, "Stopped.")
    except BrokenPipeError:  # Of `| head`.
        sys.stderr.close()
        sys.exit(1)
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if "--debug" in arguments:
            raise
        _end(1, f"{type(error).__name__}: {error}")


def _end(code, sentence):
    print(sentence, file=sys.stderr)
    sys.exit(code)


def overview():
    """What `kerasrl-pg --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Policy gradients the Keras way.",
            "",
            "Usage: kerasrl-pg COMMAND [--flag=value ...]",
            "",
            *lines,
            "",
            "`kerasrl-pg COMMAND --help` shows its flags. For example:",
            "",
            "  kerasrl-pg train --agent=ppo --env=CartPole-v1 --total_steps=100000 --out=runs/cartpole",
            "  kerasrl-pg train --resume --out=runs/cartpole",
            "  kerasrl-pg evaluate --from=runs/cartpole --episodes=100",
            "  kerasrl-pg video --from=runs/cartpole --out=cartpole.gif",
        ]
    )


def help_of(name, values):
    """What `kerasrl-pg NAME --help` prints."""
    head, *rest = module_of(name).__doc__.strip().split("\n", 1)
    text = "\n".join(rest)
    examples = re.sub(r"^(kerasrl-pg |eval )", r"    \1", text, flags=re.MULTILINE)
    lines = [f"kerasrl-pg {name}: {head}", examples, "", "Flags:", ""]
    for flag in _flags(values):
        lines += _described(flag)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _flags(values):
    names = list(dict.fromkeys(flag.name for flag in map(values.__getitem__, values)))
    last = [name for name in ("debug", "help") if name in names]
    return [values[name] for name in [*(n for n in names if n not in last), *last]]


def _described(flag):
    name = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}"
    if getattr(flag.parser, "enum_values", None):
        name += f"=<{'|'.join(flag.parser.enum_values)}>"
    default = "" if flag.default in (None, False, []) else f" Default: {str(flag.default).lower()}."
    text = re.sub(r"^<.*?>: |;\s+repeat this option.*$|\s+\(a comma separated list\)$", "", flag.help, flags=re.DOTALL)
    text = " ".join(text.split()) + default
    return [name, *textwrap.wrap(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)]


def need(values, *names):
    """Refuses to go on without some flags.

    Raises:
        absl.app.UsageError: If one is missing.
    """
    for name in names:
        if values[name].value in (None, "", []):
            raise app.UsageError(f"--{name} must be given. Received: none.")


def no_more(positional, flag=None):
    """Refuses arguments that are no flags.

    Raises:
        absl.app.UsageError: If there are some.
    """
    if positional:
        meant = f" Did you mean --{flag}={positional[0]}?" if flag else ""
        raise app.UsageError(f"Everything must be a flag, --name=value. Received: {' '.join(positional)}.{meant}")
