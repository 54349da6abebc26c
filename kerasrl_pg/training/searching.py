"""The verbs of training for methods without gradients."""

from kerasrl_pg.checks import knows_its_arguments
from kerasrl_pg.envs.compiled import check_contract
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.population import CompiledPlay, HostPlay, Members
from kerasrl_pg.training.distributed import refuse_workers
from kerasrl_pg.training.population import PopulationTraining
from kerasrl_pg.training.trainer import Trainer


class Searching(Trainer):
    """`compile` and `fit` of an agent that plays populations; `fit` needs no `compile`."""

    in_python = False  # Whether the method is no TensorFlow function, so that only the playing is compiled.

    @knows_its_arguments
    def compile(
        self, optimizer=None, critic_optimizer=None, jit_compile="auto", run_eagerly=False, steps_per_execution=1
    ):
        """Sets how programs are compiled, and for evolution strategies the optimizer.

        Args:
            optimizer: None, or where the method descends an estimate, any Keras optimizer.
            critic_optimizer: None, since there is no critic.
            jit_compile, run_eagerly, steps_per_execution: As of every agent.

        Raises:
            ValueError: If an optimizer is given that would move nothing, or the settings contradict each other.
        """
        if optimizer is not None and self.default_optimizer() is None:
            raise ValueError(
                f"`optimizer` must be left out, since {type(self).__name__} moves the weights by a rule of its own. "
                f"Received: optimizer={optimizer!r}."
            )
        super().compile(optimizer, critic_optimizer, jit_compile, run_eagerly, steps_per_execution)

    def _assert_compile_called(self, method_name=None):
        """Keras's check before it trains: an agent that needs no optimizer compiles itself."""
        if not self.compiled:
            self.compile()

    def train_on(self, rollout):
        """Refused: what is learned from is a population, which has to be played."""
        raise NotImplementedError(
            f"`train_on` has no use for a rollout, since {type(self).__name__} compares members of a population by "
            "their returns. Call `fit` with an environment."
        )

    def gradients(self, rollout):
        """Refused, as `train_on`."""
        raise NotImplementedError(
            f"`gradients` has none to give, since {type(self).__name__} compares members of a population by their "
            "returns. Call `fit` with an environment."
        )

    def _opened(self, env, num_envs, workers):
        refuse_workers(workers, "a population is played side by side in this process")
        return super()._opened(env, num_envs, None)

    def _training(self, world, budget, seed):
        """`PopulationTraining` in this world."""
        self._rooms.clock.budget.assign(budget.annealing())
        self._set_noise()
        members, horizon = Members(self.actor_critic, self.deterministic), self.rollout_horizon(world.env)
        if world.compiled:
            check_contract(world.env)
            networks = self.actor_critic
            self._note_masks(networks.mask_key is not None or compiled.gives_masks(world.env, networks.head))
            play = CompiledPlay(world.env, members, horizon, self.episodes, self.gamma)
        else:
            play = HostPlay(world.env, members, horizon, self.episodes, self.gamma, self.program, self._note_masks)
        return PopulationTraining(
            play,
            members,
            self._iteration(world.num_envs),
            self.program,
            world.compiled,
            not self.in_python,
            seed,
            budget.annealing(),
        )

    def _iteration(self, num_envs):
        return super()._iteration(num_envs)._replace(train_step=self.iteration)
