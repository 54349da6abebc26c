"""draws the laboratory's pictures of the notes' claims, each with the figures it was drawn from.

kerasrl-pg lab --out=pictures
"""

from absl import flags

from kerasrl_pg.cli.command import need, no_more


def define(values):
    """Defines the flags."""
    flags.DEFINE_string("out", None, "Folder for the pictures.", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "Replace pictures that are there.", flag_values=values)
    flags.DEFINE_integer("verbose", 1, "0 silent.", flag_values=values)


def run(values, positional):
    """Draws."""
    no_more(positional, "out")
    need(values, "out")
    from kerasrl_pg.lab import pictures

    pictures.draw(values.out, verbose=values.verbose > 0, overwrite=values.overwrite)
    print(f"Pictures: {values.out}")
