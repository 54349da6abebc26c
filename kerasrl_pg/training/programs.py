"""An agent's compiled programs, and the settings that they were traced with."""

import tensorflow as tf

from kerasrl_pg.ops.recurrence import gradients_forgotten


class Programs:
    """Functions compiled as `compile` of the agent said, by what they are for; each made once.

    Attributes:
        made: `{key: (function, names)}`.
        latest: The function made last, whose traces tests count.
    """

    def __init__(self):
        self.made = {}
        self.latest = None
        self._settings = None

    def keep_those_of(self, settings):
        """Forgets all programs where `settings`, anything with an equality, are not those they were traced with."""
        if self._settings is not None and self._settings != settings:
            self.forget()
        self._settings = settings

    def forget(self):
        """Forgets all programs."""
        self.made.clear()

    def has(self, *key):
        """Whether there is a program whose key begins with these."""
        return any(made[: len(key)] == key for made in self.made)

    def get(self, key, make, jit_compile, run_eagerly):
        """A program.

        Args:
            key: What it is for; a hashable tuple.
            make: Function without arguments giving `(function, names)`: what to compile, and a list that it fills in
                with the names of its logs when it is traced.
            jit_compile: Whether with XLA.
            run_eagerly: Whether not to compile at all.

        Returns:
            `(function, names)`.
        """
        if key not in self.made:
            function, names = make()
            if not run_eagerly:
                function = tf.function(_forgetful(function), autograph=False, jit_compile=jit_compile)
            self.made[key] = function, names
            self.latest = function
        return self.made[key]


def _forgetful(function):
    """A function that, when it is traced, leaves no gradients behind."""

    def traced(*arguments):
        with gradients_forgotten():
            return function(*arguments)

    return traced
