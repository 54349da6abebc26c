"""CleanRL's network for Atari in PyTorch, timed: `cleanrl_network.py CASE_JSON [torch_threads]`, prints one JSON line.

Its `ppo_atari.py`: convolutions of 32 8 x 8, 64 4 x 4 and 64 3 x 3, a layer of 512, and two heads on it; orthogonal.
"""

import json
import sys

import torch
from milliseconds import milliseconds
from torch import nn


def layer(made, gain=2**0.5):
    nn.init.orthogonal_(made.weight, gain)
    nn.init.constant_(made.bias, 0.0)
    return made


def main(case, threads):
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(case["seed"])
    trunk = nn.Sequential(
        layer(nn.Conv2d(4, 32, 8, stride=4)),
        nn.ReLU(),
        layer(nn.Conv2d(32, 64, 4, stride=2)),
        nn.ReLU(),
        layer(nn.Conv2d(64, 64, 3, stride=1)),
        nn.ReLU(),
        nn.Flatten(),
        layer(nn.Linear(64 * 7 * 7, 512)),
        nn.ReLU(),
    )
    actor, critic = layer(nn.Linear(512, 6), 0.01), layer(nn.Linear(512, 1), 1.0)
    weights = [*trunk.parameters(), *actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2.5e-4, eps=1e-5)
    few, many = (torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8) for n in (case["num_envs"], case["rows"]))
    actions = torch.randint(0, 6, (case["rows"],))

    def forward():
        with torch.no_grad():
            features = trunk(few / 255.0)
            return actor(features).numpy(), critic(features).numpy()

    def update():
        features = trunk(many / 255.0)
        loss = nn.functional.cross_entropy(actor(features), actions) + (critic(features) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    versions = {"torch": torch.__version__}
    print(json.dumps({"forward": milliseconds(forward), "update": milliseconds(update), "versions": versions}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
