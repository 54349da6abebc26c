"""The `kerasrl-pg` command: one module a subcommand, each with flags of its own."""

from kerasrl_pg.cli.command import COMMANDS, call, main

__all__ = ["COMMANDS", "call", "main"]
