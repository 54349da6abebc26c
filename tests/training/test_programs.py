"""Programs are made once for what they are for, and anew when the settings that they were traced with have changed."""

import pytest
import tensorflow as tf

from kerasrl_pg.training.logs import MOST_LOGS, pack_logs
from kerasrl_pg.training.programs import Programs


def maker(traces):
    """Makes a function that adds 1, and notes each trace of it."""

    def make():
        names = []

        def function(x):
            traces.append(tf.executing_eagerly())
            names[:] = ["one"]
            return x + 1

        return function, names

    return make


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.xla)])
def test_a_program_is_made_and_traced_once(jit_compile):
    programs, traces = Programs(), []
    for _ in range(3):
        function, names = programs.get(("add", 1), maker(traces), jit_compile, False)
        assert int(function(tf.constant(1))) == 2
    assert traces == [False] and names == ["one"] and programs.latest is function
    programs.get(("add", 2), maker(traces), jit_compile, False)[0](tf.constant(1))
    assert traces == [False, False]
    assert programs.has("add") and programs.has("add", 2) and not programs.has("add", 3) and not programs.has("sub")


def test_eagerly_nothing_is_traced():
    programs, traces = Programs(), []
    function, _ = programs.get(("add",), maker(traces), False, True)
    function(tf.constant(1)), function(tf.constant(2))
    assert traces == [True, True]


def test_settings_that_have_changed_make_them_anew():
    programs, traces = Programs(), []

    def use(settings):
        programs.keep_those_of(settings)
        programs.get(("add",), maker(traces), False, False)[0](tf.constant(1))
        return len(traces)

    assert [use(s) for s in ({"gamma": 0.9}, {"gamma": 0.9}, {"gamma": 0.8}, {"gamma": 0.8}, {"gamma": 0.9})] == [
        1, 1, 2, 2, 3,
    ]  # fmt: skip
    programs.forget()
    assert use({"gamma": 0.9}) == 4


def test_logs_are_packed_in_their_order_and_named():
    names = ["of before"]
    packed = pack_logs({"b": tf.constant(2), "a": tf.constant(True), "c": tf.constant(0.5, tf.float64)}, names)
    assert names == ["b", "a", "c"] and packed.dtype == tf.float32 and packed.shape == (MOST_LOGS,)
    assert packed.numpy().tolist() == [2.0, 1.0, 0.5] + [0.0] * (MOST_LOGS - 3)
