"""prints what makes the shell complete commands and flags.

eval "$(kerasrl-pg completion bash)"      # or zsh; in ~/.bashrc, say
"""

from absl import app

from kerasrl_pg.cli.command import COMMANDS, flags_of

BASH = """_kerasrl_pg() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}}
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    return
  fi
  case $command in
{cases}
  esac
}}
complete -o default -o nospace -F _kerasrl_pg kerasrl-pg
"""


def define(values):
    """There are no flags of its own."""


def run(values, positional):
    """Prints the script of one shell."""
    if positional not in (["bash"], ["zsh"]):
        raise app.UsageError(f"completion must be of bash or zsh. Received: {' '.join(positional) or 'none'}.")
    if positional == ["zsh"]:
        print("autoload -U +X bashcompinit && bashcompinit")
    cases = []
    for name in COMMANDS:
        values = flags_of(name)
        names = sorted({f"--{values[key].name}" + ("" if values[key].boolean else "=") for key in values})
        cases.append(f'    {name}) COMPREPLY=($(compgen -W "{" ".join(names)}" -- "$current")) ;;')
    print(BASH.format(commands=" ".join(COMMANDS), cases="\n".join(cases)))
