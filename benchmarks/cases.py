"""The cases of `throughput.py`: what every side is told, word for word.

`steps` are environment steps on the clock; `warmup` iterations come before them, off it.
Networks are everywhere two hidden layers of 64 tanh units, policy and value separate.
"""

CASES = {
    # RL Baselines3 Zoo's hyperparameters for PPO on CartPole-v1, its two schedules held constant.
    "ppo-cartpole": {
        "algorithm": "ppo",
        "env": "CartPole-v1",
        "num_envs": 8,
        "horizon": 32,
        "update_epochs": 20,
        "minibatch_size": 256,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "learning_rate": 1e-3,
        "clip_ratio": 0.2,
        "entropy_coef": 0.0,
        "value_coef": 0.5,
        "max_grad_norm": 0.5,
        "warmup": 10,
        "steps": 51_200,
    },
    # Stable-Baselines3's defaults for PPO, with 8 x 256 steps in place of 1 x 2048.
    "ppo-halfcheetah": {
        "algorithm": "ppo",
        "env": "HalfCheetah-v5",
        "num_envs": 8,
        "horizon": 256,
        "update_epochs": 10,
        "minibatch_size": 64,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "learning_rate": 3e-4,
        "clip_ratio": 0.2,
        "entropy_coef": 0.0,
        "value_coef": 0.5,
        "max_grad_norm": 0.5,
        "warmup": 2,
        "steps": 20_480,
    },
    # Stable-Baselines3's defaults for A2C, RMSprop with decay 0.99 and epsilon 1e-5.
    "a2c-cartpole": {
        "algorithm": "a2c",
        "env": "CartPole-v1",
        "num_envs": 8,
        "horizon": 5,
        "gamma": 0.99,
        "gae_lambda": 1.0,
        "learning_rate": 7e-4,
        "entropy_coef": 0.0,
        "value_coef": 0.5,
        "max_grad_norm": 0.5,
        "warmup": 50,
        "steps": 40_000,
    },
}
