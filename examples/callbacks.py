"""Keras's own callbacks at work: python examples/callbacks.py [steps] [folder]"""

import sys

import keras

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
folder = sys.argv[2] if len(sys.argv) > 2 else "runs/callbacks"

agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=(64, 64)), entropy_coef=0.01, seed=0)
agent.compile()
history = agent.fit(
    "CartPole-v1",
    total_steps=steps,
    num_envs=8,
    epochs=10,
    validation_env="CartPole-v1",  # Its results are logged as val_return, val_return_std, ...
    validation_episodes=10,
    callbacks=[
        keras.callbacks.EarlyStopping("val_return", mode="max", patience=5, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(f"{folder}/best.keras", "val_return", mode="max", save_best_only=True),
        keras.callbacks.BackupAndRestore(f"{folder}/backup"),  # Run the command again after a crash: it goes on.
        keras.callbacks.TensorBoard(f"{folder}/board"),
        keras.callbacks.CSVLogger(f"{folder}/log.csv"),
        keras.callbacks.TerminateOnNaN(),
    ],
)
print(history.history["val_return"])
best = keras.models.load_model(f"{folder}/best.keras")
print(best.evaluate("CartPole-v1", episodes=20))
