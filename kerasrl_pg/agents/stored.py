"""What methods share that learn from stored trajectories and play nothing."""

from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.settings import Setting
from kerasrl_pg.training import stored
from kerasrl_pg.training.distributed import refuse_workers
from kerasrl_pg.training.host import HostTraining


class FromStored(Agent):
    """Base of the agents whose `fit` takes a dataset in place of an environment.

    An iteration learns from `episodes` stored ones, a pass over all of them, in an order drawn from the agent's seed,
    after the other; what is left of the last batch of a pass begins the next. `total_steps`, `env_steps` and
    `steps_per_second` count stored steps. `epochs` alone is a number of passes.

    Args:
        episodes: Stored episodes of an iteration, at least 1.
    """

    needs_log_probs = False  # Whether the method must know with which probability actions were taken.

    episodes = Setting(check_whole)

    def check_settings(self):
        super().check_settings()
        for name in ("horizon", "sequence_length"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` must be left out, since an iteration learns from whole stored episodes. "
                    f"Received: {name}={getattr(self, name)}."
                )

    @property
    def episodes_per_env(self):
        return 1

    def rollout_horizon(self, env):
        """T: of the longest stored episode; in the laboratory the environment's time limit."""
        return env.max_episode_steps if isinstance(env, CompiledEnv) else env.longest

    def length_of_sequences(self, horizon):
        return horizon if self.actor_critic.memories else 1

    # A fit, with a dataset for its world

    def _opened(self, dataset, num_envs, workers):
        refuse_workers(workers, "stored episodes are learned from, and nothing is played")
        return stored.opened(dataset, num_envs, self.episodes)

    def _begin(self, world, total_steps, epochs, steps_per_epoch):
        if total_steps is None and steps_per_epoch is None:
            steps_per_epoch = world.env.batches
        return super()._begin(world, total_steps, epochs, steps_per_epoch)

    def _training(self, world, budget, seed):
        self._rooms.clock.budget.assign(budget.annealing())
        trajectories, networks = world.env.trajectories, self.actor_critic
        self._note_masks(trajectories.gives_masks(networks))
        reader = stored.Reader(trajectories, networks, self.needs_log_probs, world.num_envs, self.seed)
        return HostTraining(reader, reader, self._iteration(world.num_envs), self.program, budget.annealing())
