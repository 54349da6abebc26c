"""A search of seconds."""

import pytest

import kerasrl_pg as pg

ENV = {"CartPole": {"num_envs": 4, "max_episode_steps": 20}}


@pytest.fixture(scope="package")
def run():
    settings = {"horizon": 8, "networks": {"Networks": {"hidden_units": [4]}}}
    return pg.Run(pg.A2C, ENV, total_steps=128, settings=settings)


@pytest.fixture(scope="package", autouse=True)
def searches_of_a_whole_module_are_compiled_without_xla():
    with pytest.MonkeyPatch.context() as patch:
        asked = property(lambda agent: agent._jit_setting is True and not agent.run_eagerly)
        patch.setattr(pg.Agent, "compiled_with_xla", asked)
        yield
