"""The clock of both peers: starts with iteration `warmup`, stopped by the program."""

import time

from stable_baselines3.common.callbacks import BaseCallback


class Clock(BaseCallback):
    """Notes the time and the step count when rollout number `warmup` (from 0) starts."""

    def __init__(self, warmup):
        super().__init__()
        self.warmup = warmup
        self.rollouts = 0
        self.started = None

    def _on_rollout_start(self):
        if self.rollouts == self.warmup:
            self.started = time.perf_counter()
            self.first_step = self.num_timesteps
        self.rollouts += 1

    def _on_step(self):
        return True

    def report(self, model, versions):
        """What `throughput.py` reads: one JSON object, to be called right after `learn`."""
        seconds = time.perf_counter() - self.started
        steps = model.num_timesteps - self.first_step
        episodes = [episode["r"] for episode in model.ep_info_buffer]
        return {
            "steps_per_second": steps / seconds,
            "steps": steps,
            "seconds": seconds,
            "iterations": self.rollouts - self.warmup,
            "last_returns": float(sum(episodes) / len(episodes)) if episodes else None,
            "versions": versions,
        }
