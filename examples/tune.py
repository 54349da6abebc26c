"""Searches hyperparameters with KerasTuner: python examples/tune.py [trials] [steps] [folder]"""

import sys

import keras
import keras_tuner as kt

import kerasrl_pg as pg

trials = int(sys.argv[1]) if len(sys.argv) > 1 else 8
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 30_000
folder = sys.argv[3] if len(sys.argv) > 3 else "runs/tuning"


class Search(kt.HyperModel):
    """What may vary: the learning rate, λ, and the passes over a rollout."""

    def build(self, hp):
        agent = pg.PPO(
            horizon=64,
            minibatch_size=128,
            update_epochs=hp.Int("update_epochs", 4, 16, step=4),
            estimator=pg.estimators.GAE(hp.Float("gae_lambda", 0.8, 1.0)),
            seed=0,
        )
        rate = hp.Float("learning_rate", 1e-4, 3e-3, sampling="log")
        agent.compile(keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5))
        return agent

    def fit(self, hp, agent, env, **kwargs):
        return agent.fit(env, total_steps=steps, num_envs=8, validation_env=env, **{**kwargs, "epochs": 2})


tuner = kt.RandomSearch(
    Search(), kt.Objective("val_return", "max"), max_trials=trials, seed=0, directory=folder, project_name="cartpole"
)
tuner.search("CartPole-v1", verbose=0)
print(tuner.get_best_hyperparameters(1)[0].values)
print(tuner.get_best_models(1)[0].evaluate("CartPole-v1", episodes=20))
