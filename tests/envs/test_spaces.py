import json
from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import ObservationSpec, space_from_config, space_to_config
from kerasrl_pg.envs.spaces import as_text, check_buildable, check_same_space, is_image, kind_of
from kerasrl_pg.models import Networks

S = gym.spaces
MANY = S.Discrete(2)
NESTED = S.Dict(
    goal=S.Discrete(3, start=-1),
    robot=S.Dict(arm=S.Box(-1, 1, (2,)), buttons=S.MultiBinary((2, 2))),
    views=S.Tuple([S.Box(0, 255, (8, 8, 3), np.uint8), S.MultiDiscrete([2, 5])]),
)

SPACES = {
    "box": S.Box(-1, 1, (2, 3)),
    "box_scalar": S.Box(0, 1, ()),
    "box_empty": S.Box(-1, 1, (0,)),
    "box_infinite": S.Box(-np.inf, np.inf, (4,)),
    "box_half_infinite": S.Box(np.float32([-np.inf, 0]), np.float32([1, np.inf])),
    "box_arrays": S.Box(np.float32([-0.1, -2.5]), np.float32([0.3, 7])),
    "box_float64": S.Box(-0.1, 0.1, (2,), np.float64),
    "box_uint8": S.Box(0, 255, (4, 4), np.uint8),
    "box_int64": S.Box(-np.inf, np.inf, (2,), np.int64),
    "discrete": S.Discrete(5),
    "discrete_start": S.Discrete(5, start=-2),
    "multi_discrete": S.MultiDiscrete([2, 4], start=[1, -3]),
    "multi_discrete_2d": S.MultiDiscrete([[2, 4], [3, 1]]),
    "multi_binary": S.MultiBinary(3),
    "multi_binary_2d": S.MultiBinary((2, 3)),
    "tuple": S.Tuple([S.Discrete(2), S.Box(-1, 1, (1,))]),
    "nested": NESTED,
    "text": S.Text(4, min_length=2, charset="cab"),
    "unsorted": S.Dict(OrderedDict(b=S.Discrete(2), a=S.Discrete(3))),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_survives_json(name):
    space = SPACES[name]
    config = json.loads(json.dumps(space_to_config(space)))
    again = space_from_config(config)
    assert again == space
    assert space_to_config(again) == config
    check_same_space("env", space, again, bounds=True)


def test_the_keys_of_a_dict_keep_their_order():
    again = space_from_config(space_to_config(SPACES["unsorted"]))
    assert list(again.spaces) == ["b", "a"]


def test_config_refuses_unknown_spaces():
    with pytest.raises(ValueError, match="A space must be Box, .* Received: Sequence.* Convert it with"):
        space_to_config(S.Sequence(S.Discrete(2)))
    with pytest.raises(ValueError, match="`kind` must name a known space. Received: kind='Sequence'"):
        space_from_config({"kind": "Sequence"})


def test_a_single_space_is_one_tensor():
    spec = ObservationSpec(S.Box(-1, 1, (3,), np.float64))
    assert spec.single
    assert spec.specs == tf.TensorSpec((3,), tf.float32, name="observation")
    observation = np.arange(3.0)
    assert spec.flatten(observation) is observation
    assert spec.empty(5, 2).shape == (5, 2, 3)
    assert spec.empty(5, 2).dtype == np.float32


@pytest.mark.parametrize(
    "name, shape, dtype",
    [
        ("box", (2, 3), "float32"),
        ("box_scalar", (), "float32"),
        ("box_uint8", (4, 4), "uint8"),
        ("box_int64", (2,), "float32"),
        ("discrete_start", (), "int32"),
        ("multi_discrete_2d", (2, 2), "int32"),
        ("multi_binary_2d", (2, 3), "float32"),
    ],
)
def test_tensors_of_single_spaces(name, shape, dtype):
    leaf = ObservationSpec(SPACES[name]).specs
    assert (tuple(leaf.shape), leaf.dtype.name) == (shape, dtype)


def test_nested_spaces_are_one_flat_dictionary():
    spec = ObservationSpec(NESTED)
    assert not spec.single
    assert {name: (tuple(leaf.shape), leaf.dtype.name) for name, leaf in spec.specs.items()} == {
        "goal": ((), "int32"),
        "robot_arm": ((2,), "float32"),
        "robot_buttons": ((2, 2), "float32"),
        "views_item0": ((8, 8, 3), "uint8"),
        "views_item1": ((2,), "int32"),
    }
    observation = NESTED.sample()
    flat = spec.flatten(observation)
    assert list(flat) == list(spec.specs)
    assert flat["goal"] == observation["goal"]
    np.testing.assert_array_equal(flat["robot_arm"], observation["robot"]["arm"])
    np.testing.assert_array_equal(flat["robot_buttons"], observation["robot"]["buttons"])
    np.testing.assert_array_equal(flat["views_item0"], observation["views"][0])
    np.testing.assert_array_equal(flat["views_item1"], observation["views"][1])
    storage = spec.empty(7)
    assert {name: (x.shape, x.dtype.name) for name, x in storage.items()} == {
        name: ((7, *leaf.shape), leaf.dtype.name) for name, leaf in spec.specs.items()
    }


def test_a_tuple_gives_names_by_place():
    spec = ObservationSpec(SPACES["tuple"])
    assert list(spec.specs) == ["item0", "item1"]
    flat = spec.flatten((1, np.float32([0.5])))
    assert flat["item0"] == 1
    assert flat["item1"] == [0.5]


@pytest.mark.parametrize(
    "key, name",
    [
        ("agent pos", "agent_pos"),
        ("robot/pos", "robot_pos"),
        ("1st", "item1st"),
        ("class", "class_"),
        ("seed", "seed_"),
    ],
)
def test_names_that_signatures_cannot_have(key, name):
    spec = ObservationSpec(S.Dict({key: S.Discrete(2)}))
    assert list(spec.specs) == [name]
    assert spec.flatten({key: 1}) == {name: 1}


def test_names_that_collide_are_refused():
    space = S.Dict({"a": S.Dict(b=S.Discrete(2)), "a_b": S.Discrete(2)})
    with pytest.raises(ValueError, match="Two parts .* same name 'a_b'. Received: space=Dict.* Rename one key"):
        ObservationSpec(space)


@pytest.mark.parametrize("space", [S.OneOf([S.Discrete(3)]), S.Sequence(S.Discrete(2)), S.Dict(a=S.OneOf([MANY]))])
def test_spaces_without_a_tensor_are_refused(space):
    with pytest.raises(ValueError, match="An observation space must be Box, .* Received: (OneOf|Sequence)"):
        ObservationSpec(space)


def where(row):
    return f"at {row}"


def test_one_observation_or_a_batch():
    spec = ObservationSpec(S.Box(-1, 1, (3,)))
    assert spec.batch_size(np.zeros(3), where) is None
    assert spec.batch_size(np.zeros((1, 3)), where) == 1
    for shape in ((4,), (2, 4), (2, 2, 3)):
        with pytest.raises(ValueError, match=r"`observation` must have shape \(3,\), or a batch of it. Received: sh"):
            spec.batch_size(np.zeros(shape), where)
    spec = ObservationSpec(S.Discrete(3))
    assert spec.batch_size(1, where) is None
    assert spec.batch_size([1, 2], where) == 2
    spec = ObservationSpec(SPACES["tuple"])
    assert spec.batch_size((np.zeros(2), np.zeros((2, 1))), where) == 2


@pytest.mark.parametrize(
    "space, kind",
    [
        (S.Box(0, 255, (8, 8), np.uint8), "image"),
        (S.Box(0, 255, (8,), np.uint8), "numbers"),
        (S.Box(0, 255, (4, 84, 84, 3), np.uint8), "image"),
        (S.Box(0, 255, (2, 2, 2, 2), np.uint8), "numbers"),
        (S.Box(0, 1, (10, 10, 4), np.uint8), "image"),
        (S.Box(0, 63, (7, 7, 3), np.uint8), "categories"),
        (S.Box(0, 64, (7, 7, 3), np.uint8), "image"),
        (S.Box(0, 2, (3, 3), np.uint8), "categories"),
        # AtariPreprocessing(scale_obs=True), alone and stacked; MinAtar.
        (S.Box(0, 1, (84, 84)), "image"),
        (S.Box(0, 1, (4, 84, 84)), "image"),
        (S.Box(0, 1, (10, 10, 6), bool), "image"),
        (S.Box(0, 255, (84, 84, 3), np.int64), "image"),
        (S.Box(0, 255, (4, 40, 40, 3)), "image"),
        (S.Box(0, 1, (35, 36)), "numbers"),
        (S.Box(0, 1, (10, 2, 4)), "numbers"),
        (S.Box(-1, 1, (84, 84, 3)), "numbers"),
        (S.Box(0, 2, (84, 84, 3)), "numbers"),
        (S.Box(-np.inf, np.inf, (84, 84, 3)), "numbers"),
        (S.Box(np.zeros((8, 8, 3)), np.arange(192).reshape(8, 8, 3)), "numbers"),
        (S.MultiBinary((8, 8)), "numbers"),
        (S.Discrete(3), "categories"),
        (S.Text(3), "text"),
    ],
)
def test_what_a_leaf_is_taken_for(space, kind):
    assert kind_of(space) == kind
    assert is_image(space) == (kind == "image")


def test_the_inputs_of_images_are_those_that_files_were_saved_with():
    for space, dtype in ((S.Box(0, 1, (84, 84)), "float32"), (S.Box(0, 1, (10, 10, 6), bool), "float32")):
        assert ObservationSpec(space).specs.dtype.name == dtype
    assert ObservationSpec(S.Box(0, 10, (7, 7, 3), np.uint8)).specs.dtype.name == "uint8"


def test_texts_become_numbers_of_their_characters():
    spec = ObservationSpec(S.Dict(a=S.Text(4, charset="cab"), b=S.Discrete(2)))
    assert (tuple(spec.specs["a"].shape), spec.specs["a"].dtype.name) == ((4,), "int32")
    assert spec.choices["a"] == (0, 3)
    for texts in (["cab", ""], ("cab", ""), np.array(["cab", ""]), np.array(["cab", ""], object)):
        read = spec.read({"a": texts, "b": [0, 1]}, 2, where)["a"]
        assert (read.tolist(), read.dtype) == ([[3, 1, 2, 0], [0, 0, 0, 0]], np.int32)
    rows = spec.read([{"a": "b", "b": 0}, {"a": "aa", "b": 1}], 2, where, rows=True)
    assert rows["a"].tolist() == [[2, 0, 0, 0], [1, 1, 0, 0]]
    assert spec.flatten({"a": "ba", "b": 0})["a"].tolist() == [2, 1, 0, 0]
    assert spec.batch_size({"a": "ba", "b": 0}, where) is None
    assert spec.batch_size({"a": ["ba", "c"], "b": [0, 1]}, where) == 2
    assert ObservationSpec(S.Text(3)).flatten(["1", "23"]).shape == (2, 3)


@pytest.mark.parametrize(
    "values, received",
    [
        (["cabba", "a"], "'cabba' at 0"),
        (["a", "d"], "'d' at 1"),
        (["a", 3], "3 at 1"),
        ("ab", "'ab' at None"),
        (["a"], r"\['a'\] at None"),
    ],
)
def test_other_texts_are_refused_by_their_place(values, received):
    spec = ObservationSpec(S.Dict(a=S.Tuple([S.Text(4, charset="cab")])))
    with pytest.raises(ValueError, match=rf"`observation\['a'\]\[0\]` must be .*text.* Received: {received}"):
        spec.read({"a": (values,)}, 2, where)


class Missions(gym.Space):
    """As MiniGrid's `MissionSpace`: texts, of which it says neither length nor characters."""

    def __init__(self):
        super().__init__(dtype=str)

    def sample(self, mask=None, probability=None):
        return "get to the green goal square"

    def contains(self, x):
        return x == self.sample()


def test_a_space_of_texts_of_another_class_is_text():
    space = S.Dict(mission=Missions())
    spec = ObservationSpec(space)
    read = spec.read({"mission": [Missions().sample()]}, 1, where)["mission"]
    assert read.shape == (1, 128)
    letters = as_text(Missions()).characters
    assert "".join(letters[i - 1] for i in read[0] if i) == Missions().sample()
    check_same_space("env", space_from_config(json.loads(json.dumps(space_to_config(space)))), space)
    with pytest.raises(ValueError, match=r"`observation\['mission'\]` must be a text of at most 128.*FilterObservatio"):
        spec.read({"mission": ["x" * 129]}, 1, where)


@pytest.mark.parametrize(
    "expected, received",
    [
        (S.Discrete(2), S.Discrete(3)),
        (S.Discrete(2), S.Discrete(2, start=1)),
        (S.Discrete(2), S.MultiBinary(2)),
        (S.Box(-1, 1, (2,)), S.Box(-1, 1, (3,))),
        (S.Box(0, 255, (8, 8), np.uint8), S.Box(0, 1, (8, 8))),
        (S.MultiDiscrete([2, 3]), S.MultiDiscrete([3, 2])),
        (S.Dict(a=S.Discrete(2)), S.Dict(b=S.Discrete(2))),
        (S.Dict(a=S.Discrete(2)), S.Dict(a=S.Discrete(3))),
        (S.Tuple([S.Discrete(2)]), S.Discrete(2)),
    ],
)
def test_other_spaces_are_refused(expected, received):
    check_same_space("env", expected, expected)
    with pytest.raises(ValueError, match="`validation_env` must have the spaces the agent was built for: expected "):
        check_same_space("validation_env", expected, received)


def test_bounds_matter_where_asked():
    here, there = S.Dict(a=S.Box(-1, 1, (2,))), S.Dict(a=S.Box(-2, 2, (2,), np.float64))
    check_same_space("env", here, there)
    with pytest.raises(ValueError, match="`env` must have the spaces"):
        check_same_space("env", here, there, bounds=True)


@pytest.mark.parametrize(
    "space, sentence",
    [
        (S.Box(-1, 1, (0,)), "`observation_space` must hold at least one number. Received: Box"),
        (
            S.Dict(a=S.Tuple([S.Discrete(2), S.Box(-1, 1, (3, 0))])),
            r"`observation_space\['a'\]\[1\]` must hold at least",
        ),
        (
            S.MultiDiscrete(np.zeros(0, int)),
            "`observation_space` must hold at least one number. Received: MultiDiscrete",
        ),
        (S.Dict(), r"`observation_space` must hold something. Received: Dict\(\)"),
        (S.Tuple([S.Discrete(2), S.Dict(b=S.Tuple(()))]), r"`observation_space\[1\]\['b'\]` must hold something."),
        (S.Discrete(2**33), "`observation_space` must have choices within int32.* Received: Discrete"),
        (S.Dict(a=S.Discrete(3, start=2**31)), r"`observation_space\['a'\]` must have choices within int32"),
        (S.MultiDiscrete([3, 2**31 + 1]), "`observation_space` must have choices within int32"),
        (S.Tuple([S.Sequence(MANY)]), r"must be Box, .* Received: Sequence.* as observation_space\[0\]"),
        (S.Dict(a=S.Text(0, min_length=0)), r"`observation_space\['a'\]` must hold at least one character"),
        (S.Dict(a=S.Dict(b=S.OneOf([S.Discrete(2)]))), r"Received: OneOf.* as observation_space\['a'\]\['b'\]"),
        (S.Dict(a=S.Dict({(1, 2): S.Discrete(2)})), r"`observation_space\['a'\]` must have texts .* the key \(1, 2\)"),
        (
            S.Dict({"a b": S.Discrete(2), "a_b": S.Discrete(3)}),
            r"with observation_space\['a b'\] and observation_space\['",
        ),
    ],
)
def test_a_refused_part_of_a_space_is_named_by_its_place(space, sentence):
    with pytest.raises(ValueError, match=sentence):
        ObservationSpec(space)


def test_the_ends_of_int32_are_choices():
    spec = ObservationSpec(S.Dict(a=S.Discrete(2**31 - 1), b=S.MultiDiscrete([2], start=[-(2**31)])))
    ends = spec.read({"a": [2**31 - 2], "b": [[-(2**31)]]}, 1, where)
    assert (ends["a"].tolist(), ends["b"].tolist()) == ([2**31 - 2], [[-(2**31)]])
    assert ends["a"].dtype == ends["b"].dtype == np.int32


@pytest.mark.parametrize(
    "space, sentence",
    [
        (
            S.Dict(a=S.Tuple([S.Box(0, 255, (2, 9), np.uint8)])),
            r"`observation_space\['a'\]\[0\]` must have sides of at l",
        ),
        (S.Box(0, 255, (9, 2, 3), np.uint8), "`observation_space` must have sides of at least 3"),
        (S.Box(0, 255, (3, 9, 1), np.uint8), None),
        (S.Box(0, 255, (1, 9, 2), np.uint8), "`observation_space` must have sides of at least 3"),
        (S.Dict(a=S.Discrete(2**24 + 1)), r"`observation_space\['a'\]` must have at most 16,777,216 choices"),
        (S.MultiDiscrete([2**23] * 3), "`observation_space` must have at most 16,777,216 choices"),
        (S.Discrete(10_000_000), None),
        (S.Box(0, 255, (2, 2, 2, 2), np.uint8), None),
        (S.Box(0, 10, (2, 9), np.uint8), None),
    ],
)
def test_what_our_networks_cannot_hold_is_refused(space, sentence):
    spec = ObservationSpec(space)  # networks of the user's own may hold it
    if sentence is None:
        check_buildable(spec, S.Discrete(2))
    else:
        with pytest.raises(ValueError, match=sentence):
            check_buildable(spec, S.Discrete(2))


@pytest.mark.parametrize(
    "space, sentence",
    [
        (S.Discrete(2**33), "must have at most 65,536 choices.* Received: Discrete"),
        (S.MultiDiscrete([2**15, 2, 2]), "must have at most 65,536 choices.* Received: MultiDiscrete"),
        (S.MultiBinary(2**17), "must have at most 65,536 choices"),
        (S.Box(-1, 1, (0,)), "must hold at least one number"),
    ],
)
def test_actions_our_heads_cannot_hold_are_refused(space, sentence):
    with pytest.raises(ValueError, match=f"`action_space` {sentence}"):
        Networks().build(S.Box(-1, 1, (2,)), space, seed=0)


def test_a_subclass_of_a_space_is_encoded_as_that_space():
    class Places(S.Discrete):
        pass

    policy, _ = Networks(hidden_units=()).build(Places(3, start=1), S.Discrete(2), seed=0)
    (kernel, *_) = policy.get_weights()
    assert kernel.shape[0] == 3
    logits = policy(tf.constant([1, 2, 3])).logits
    np.testing.assert_allclose(logits, kernel, atol=1e-7)


def test_the_parts_of_a_dict_are_the_same_in_any_order():
    here = S.Dict(OrderedDict(a=S.Discrete(2), b=S.Box(-1, 1, (2,))))
    there = S.Dict(OrderedDict(b=S.Box(-1, 1, (2,)), a=S.Discrete(2)))
    check_same_space("env", S.Tuple([here]), S.Tuple([there]))
    spec = ObservationSpec(here)
    flat = spec.read({"b": np.ones((1, 2)), "a": [1]}, 1, where)
    assert (flat["a"].tolist(), flat["b"].tolist()) == ([1], [[1, 1]])


def test_the_part_that_differs_is_named():
    here = S.Dict(a=S.Tuple([S.Discrete(2), S.Discrete(3)]))
    there = S.Dict(a=S.Tuple([S.Discrete(2), S.Discrete(4)]))
    with pytest.raises(
        ValueError, match=r"expected observation_space\['a'\]\[1\] to be Discrete\(3\). Received: Discrete\(4\). Build"
    ):
        check_same_space("env", here, there)
    with pytest.raises(ValueError, match=r"expected action_space to be Discrete\(3\). Received: Discrete\(4\)"):
        check_same_space("env", S.Discrete(3), S.Discrete(4), bounds=True)
    with pytest.raises(ValueError, match=r"Received: Sequence.* of kind Sequence as space\['a'\]\[0\]"):
        space_to_config(S.Dict(a=S.Tuple([S.Sequence(MANY)])))
    # A key 1 is not a key "1": what is read by one is not there by the other.
    with pytest.raises(ValueError, match="expected observation_space to be Dict"):
        check_same_space("env", S.Dict({1: S.Discrete(2)}), S.Dict({"1": S.Discrete(2)}))


def test_the_dtype_of_choices_survives_json():
    for space in (S.Discrete(3, dtype=np.int32), S.MultiDiscrete([2, 3], dtype=np.uint8)):
        again = space_from_config(json.loads(json.dumps(space_to_config(space))))
        assert again == space
        assert again.dtype == space.dtype
    check_same_space("env", S.Discrete(3), S.Discrete(3, dtype=np.int32), bounds=True)


def test_what_is_not_finite_is_named():
    spec = ObservationSpec(NESTED)
    rows = [NESTED.sample() for _ in range(3)]
    spec.check_finite(spec.read(rows, 3, where, rows=True), where)
    rows[1]["robot"]["arm"][:] = [0, np.inf]
    with pytest.raises(ValueError, match=r"`observation\['robot'\]\['arm'\]` must be finite. Received: .*inf\] at 1"):
        spec.check_finite(spec.read(rows, 3, where, rows=True), where)
