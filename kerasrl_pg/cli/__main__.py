"""`python -m kerasrl_pg.cli` is `kerasrl-pg`."""

from kerasrl_pg.cli import main

main()
