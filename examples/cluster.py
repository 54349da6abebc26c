"""PPO whose rollouts are played on two machines, simulated here, one of which leaves in the middle of the run.

    python examples/cluster.py [steps]

On real machines: `ray start --head` on one, `ray start --address=HEAD:6379` on the others, and then only the `fit`
below with RAY_ADDRESS=HEAD:6379 in its environment.
"""

import os
import sys
import warnings

import keras
import ray
from ray.cluster_utils import Cluster

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
os.environ["RAY_ADDRESS"] = cluster.address
warnings.simplefilter("always")


class Leaves(keras.callbacks.Callback):
    """Takes a machine away after the first epoch, and brings another one after the second."""

    def on_epoch_end(self, epoch, logs=None):
        print(f"epoch {epoch + 1}: return {logs['episode_return']:.1f}, workers {logs['workers']}", flush=True)
        if epoch == 0:
            cluster.remove_node(machines[1])
        elif epoch == 1:
            cluster.add_node(num_cpus=1)


agent = pg.PPO(horizon=128, minibatch_size=128, seed=0)
agent.compile()
agent.fit("CartPole-v1", total_steps=steps, num_envs=8, epochs=5, verbose=0, workers=2, callbacks=Leaves())
for event in agent.worker_events:
    print(f"worker {event.worker} at step {event.env_steps}: {event.reason}")
print(agent.evaluate("CartPole-v1", episodes=20))
ray.shutdown()
cluster.shutdown()
