"""Exported policies where they are served: do they act as the agent, and how long does an answer take?

    .venv/bin/python benchmarks/serving.py
    .venv/bin/python benchmarks/serving.py --case=cartpole

Four policies are trained, exported with a LiteRT file, and served by `kerasrl-pg serve --development`, a process of its
own. 10,000 observations that the policy met, with masks and memory where it has them, are asked of the server by
TensorFlow Serving's own stubs, and of the exported model in this process. Latencies are of one client that waits for
each answer, and include what a client does: arrays to a request, and the answer to arrays. The ways of asking take
turns, in rounds; ratios are medians over the pairs of a round. Both processes have one TensorFlow thread. Writes
`results/serving.json` and `.md`.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from records import ONE_THREAD, Records, origin
from throughput import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serving.json"
OBSERVATIONS, BATCHES = 10_000, (1, 64)
PACKAGES = ("kerasrl-pg", "tensorflow", "ai-edge-litert", "tensorflow-serving-api", "grpcio", "uvicorn", "starlette")
# Policy, and how it is trained.
CASES = {
    "cartpole": "CartPole-v1, `PPO_CARTPOLE`, 100,000 steps: two layers of 64",
    "pendulum": "Pendulum-v1, `PPO_PENDULUM`, 100,000 steps: two layers of 64, continuous actions",
    "masked": "Connect Four, PPO, 51,200 steps: two layers of 64, action masks",
    "recurrent": "CartPole-v1 without velocities, PPO, 51,200 steps: a layer of 64 and a GRU of 64",
}


def train(case):
    """`(agent, gymnasium id)`."""
    import keras

    import kerasrl_pg as pg

    if case in ("cartpole", "pendulum"):
        preset = {"cartpole": pg.presets.PPO_CARTPOLE, "pendulum": pg.presets.PPO_PENDULUM}[case]
        return preset.train(seed=0, verbose=0), preset.env
    memory = {"memory": pg.models.GRU(64)} if case == "recurrent" else {}
    networks = pg.Networks((64,) if memory else (64, 64), **memory)
    more = {"sequence_length": 16} if memory else {}
    agent = pg.PPO(horizon=128, minibatch_size=256, update_epochs=4, networks=networks, seed=0, **more)
    agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
    env = "games:ConnectFour-v0" if case == "masked" else "games:CartPolePositions-v1"
    agent.fit(env, total_steps=51_200, num_envs=8, verbose=0)
    return agent, env


def met(agent, env_id):
    """Observations that the policy meets when its actions are drawn: inputs by name, [10,000, ...]."""
    import gymnasium as gym
    import numpy as np

    env, rows, state = gym.make(env_id), [], None
    observation, info = env.reset(seed=1)
    size = agent.actor_critic.policy_memory_size
    for step in range(OBSERVATIONS):
        keywords = {"deterministic": False, "seed": step}
        row = {"observation": np.asarray(observation, np.float32)}
        if "action_mask" in info:
            row["action_mask"] = keywords["action_mask"] = np.asarray(info["action_mask"], bool)
        if size:
            row["state"] = np.zeros(size, np.float32) if state is None else state
            keywords["state"] = state
        rows.append(row)
        action = agent.act(observation, **keywords)
        action, state = action if size else (action, None)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset()
            state = None
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class Asked:
    """Ways to ask one exported policy, each a function of inputs by name that gives arrays by name."""

    def __init__(self, agent, folder, address):
        import grpc
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._tf, self._agent = tf, agent
        self._channel = grpc.insecure_channel(
            address, [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = tf.saved_model.load(str(folder))  # Which its functions do not keep alive.
        self._signature = self._model.signatures["serving_default"]
        litert = Interpreter(model_path=str(folder / "assets.extra" / "policy.tflite"), num_threads=1)
        self._runner = litert.get_signature_runner("serving_default")
        specs = self._signature.structured_input_signature[1]
        self._bare = tf.function(self._policy, autograph=False)
        self._concrete = self._bare.get_concrete_function(**specs)

    def _policy(self, **given):
        from kerasrl_pg.rollouts.records import Inputs

        inputs = Inputs(given["observation"], given.get("action_mask", ()), (), given.get("state", ()))
        distribution, state = self._agent.actor_critic.step(inputs)
        outputs = {"action": self._agent.head.to_env(distribution.mode())}
        return outputs if isinstance(state, tuple) else {**outputs, "state": state}

    def _called(self, function, inputs):
        outputs = function(**{name: self._tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def function(self, inputs):
        return self._called(self._bare, inputs)

    def concrete(self, inputs):
        return self._called(self._concrete, inputs)

    def exported(self, inputs):
        return self._called(self._signature, inputs)

    def litert(self, inputs):
        return self._runner(**inputs)

    def grpc(self, inputs):
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(array))
        answer = self._stub.Predict(request, timeout=60)
        return {name: self._tf.make_ndarray(proto) for name, proto in answer.outputs.items()}


def differences(ask, inputs, expected, size):
    """How many of 10,000 actions differ, and the largest difference, asked in batches."""
    import numpy as np

    parts = [ask({k: array[i : i + size] for k, array in inputs.items()}) for i in range(0, OBSERVATIONS, size)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    off = {name: np.abs(found[name].astype(float) - expected[name]) for name in expected}
    rows = np.max([x.reshape(OBSERVATIONS, -1).max(1) for x in off.values()], axis=0)
    return {"differ": int((rows > 1e-4).sum()), "largest": float(rows.max())}


def latencies(ways, rest, inputs, batch, rounds, calls):
    """Seconds of each call by way, [rounds, calls], and this process's CPU seconds of a call, [rounds]."""
    times, cpu = ({name: [] for name in (*ways, "rest")} for _ in range(2))
    given = [{k: array[i * batch : (i + 1) * batch] for k, array in inputs.items()} for i in range(8)]
    asks, order = {**ways, "rest": rest.predict}, random.Random(0)
    for _ in range(rounds + 1):
        # In another order each time, since the system favours whoever comes after one that waited.
        for name in order.sample(sorted(asks), len(asks)):
            ask, row, spent = asks[name], [], time.process_time()
            for call in range(calls):
                x = given[call % 8]
                begin = time.perf_counter()
                ask(x)
                row.append(time.perf_counter() - begin)
            times[name].append(row)
            cpu[name].append((time.process_time() - spent) / calls)
    # The first round warms up.
    return tuple({name: rows[1:] for name, rows in each.items()} for each in (times, cpu))


def summed(times, cpu):
    """Of each way: requests a second, p50, p99 and CPU time in microseconds; and ratios of pairs."""
    import numpy as np

    found = {
        name: {
            "per_second": round(1 / float(np.mean(rows)), 1),
            "p50_us": round(1e6 * float(np.percentile(rows, 50)), 1),
            "p99_us": round(1e6 * float(np.percentile(rows, 99)), 1),
            "cpu_us": round(1e6 * statistics.median(cpu[name]), 1),
        }
        for name, rows in times.items()
    }

    def ratio(above, below):
        return statistics.median(
            statistics.median(a) / statistics.median(b) for a, b in zip(times[above], times[below], strict=True)
        )

    pairs = (("exported", "concrete"), ("exported", "function"), ("grpc", "function"), ("litert", "function"))
    found = {"ways": found, "ratios": {f"{a}/{b}": round(ratio(a, b), 3) for a, b in pairs}}
    for name in ("concrete", "function"):
        both = zip(cpu["exported"], cpu[name], strict=True)
        found["ratios"][f"exported/{name}, CPU"] = round(statistics.median(a / b for a, b in both), 3)
    return found


def at_once(address, inputs, clients, seconds):
    """Requests a second of so many clients, threads of this process, with one observation each."""
    import kerasrl_pg as pg

    counts, stop = [0] * clients, threading.Event()
    x = {name: array[:1] for name, array in inputs.items()}

    def ask(number):
        with pg.serving.Client(address) as client:
            while not stop.is_set():
                client.predict(x)
                counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    begin, before = time.perf_counter(), sum(counts)
    time.sleep(seconds)
    found = (sum(counts) - before) / (time.perf_counter() - begin)
    stop.set()
    for thread in threads:
        thread.join()
    return round(found, 1)


def measure(case, rounds, calls):
    """The record of one policy."""
    import kerasrl_pg as pg

    agent, env = train(case)
    result = agent.evaluate(env, episodes=20)
    inputs = met(agent, env)
    given = {name: inputs[name] for name in ("action_mask", "state") if name in inputs}
    answer = agent.act(inputs["observation"], **given)
    expected = dict(zip(("action", "state"), answer, strict=True)) if "state" in inputs else {"action": answer}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(agent.export(Path(root) / "1", litert=True))
        command = [sys.executable, "-m", "kerasrl_pg.cli", "serve", f"--model={root}", "--development"]
        command += ["--port=0", "--rest_port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                said = [server.stdout.readline() for _ in range(4)]
                address, rest_address = said[2].split('"')[1], said[3].split()[-1].partition("/v1")[0]
                asked = Asked(agent, folder, address)
                ways = {n: getattr(asked, n) for n in ("function", "concrete", "exported", "litert", "grpc")}
                equal = {
                    f"grpc, batches of {size}": differences(asked.grpc, inputs, expected, size)
                    for size in (64, OBSERVATIONS)
                }
                for name in ("exported", "litert"):
                    equal[name] = differences(ways[name], inputs, expected, 64)
                rest = pg.serving.Client(rest_address)
                found = {str(batch): summed(*latencies(ways, rest, inputs, batch, rounds, calls)) for batch in BATCHES}
                eight = at_once(address, inputs, 8, 5.0)
            finally:
                server.terminate()
    return {
        "case": case,
        "return": result["return"],
        "equal": equal,
        "batches": found,
        "eight_clients_per_second": eight,
        "rounds": rounds,
        "calls": calls,
        "machine": machine(),
        **origin(PACKAGES),
    }


WAYS = {
    "function": "a bare `tf.function` of the policy, here",
    "concrete": "the same, traced for this signature",
    "exported": "the exported model, here",
    "litert": "its LiteRT file, here",
    "grpc": "the development server, gRPC",
    "rest": "the development server, REST",
}


def equalities(records):
    lines = ["# Serving", "", "Do served policies act as the agent? Of 10,000 observations:", ""]
    lines += ["| policy | asked | actions that differ | largest difference |", "| --- | --- | ---: | ---: |"]
    for record in records:
        for name, found in record["equal"].items():
            lines.append(f"| {record['case']} | {name} | {found['differ']} | {found['largest']:.1e} |")
    return [*lines, "", "Differ: by more than 1e-4, in an action or in what is remembered.", ""]


def speeds(records):
    lines = ["Latency in microseconds, one client that waits for each answer:", ""]
    lines += ["| policy | asked | batch 1: p50 | p99 | requests/s | batch 64: p50 | p99 | requests/s |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for record in records:
        for way, name in WAYS.items():
            cells = []
            for batch in map(str, BATCHES):
                found = record["batches"][batch]["ways"][way]
                cells += [f"{found['p50_us']:,.0f}", f"{found['p99_us']:,.0f}", f"{found['per_second']:,.0f}"]
            lines.append(f"| {record['case']} | {name} | {' | '.join(cells)} |")
    lines += ["", 'Ratios, medians over the rounds, of a round\'s medians; "bare" is the bare `tf.function`:', ""]
    lines += ["| policy | batch | exported / traced | exported / bare | gRPC / bare | LiteRT / bare "]
    lines[-1] += "| exported / traced, CPU time | exported / bare, CPU time |"
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for record in records:
        for batch in map(str, BATCHES):
            cells = " | ".join(f"{ratio:.2f}" for ratio in record["batches"][batch]["ratios"].values())
            lines.append(f"| {record['case']} | {batch} | {cells} |")
    eight = ", ".join(f"{r['case']} {r['eight_clients_per_second']:,.0f}" for r in records)
    return [*lines, "", f"Eight clients at once, one observation a request, gRPC, requests a second: {eight}.", ""]


def table(records):
    policies = [
        f"- {r['case']}: {CASES[r['case']]}; return {r['return']:.1f}, 20 deterministic episodes" for r in records
    ]
    host, versions = records[-1]["machine"], records[-1]["versions"]
    loads = ", ".join(f"{record['machine']['load_average']:.1f}" for record in records)
    lines = [*equalities(records), *speeds(records), "Policies:", "", *policies, ""]
    lines += [
        f"{records[-1]['rounds']} rounds of {records[-1]['calls']} calls each; one TensorFlow thread a process, client "
        f"and server on the same machine. {host['cpu']}, {host['cpus']} CPUs, whose load average at the end of each "
        f"measurement was {loads}; {records[-1]['date']}; " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".",
        "",
        "    python benchmarks/serving.py",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    os.environ.update(ONE_THREAD)  # Of this process, before TensorFlow is imported, and of the server.
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    records = Records(RESULTS, key=lambda record: list(CASES).index(record["case"]))
    for case in arguments.case or CASES:
        record = measure(case, arguments.rounds, arguments.calls)
        records.add(record)
        RESULTS.with_suffix(".md").write_text(table(records.load()))
        print(json.dumps(record["batches"], indent=1), flush=True)


if __name__ == "__main__":
    main()
