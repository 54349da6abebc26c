"""Package metadata of kerasrl_pg; `pip install -e ".[dev]"` for working on it."""

from setuptools import find_packages, setup

MUJOCO = ["gymnasium[mujoco]"]
BOX2D = ["gymnasium[box2d]"]
ENVPOOL = ["envpool>=1.2,<1.3"]
ATARI = ["ale-py>=0.11,<0.13", "opencv-python-headless>=4.10,<6"]  # gymnasium's AtariPreprocessing scales with OpenCV
MINIGRID = ["minigrid>=3.2,<4"]
MINARI = ["minari[hdf5]>=0.5.3,<0.6"]
# TensorFlow Serving's messages, with gRPC; uvicorn and starlette for the server for development.
SERVING = ["tensorflow-serving-api>=2.21,<2.22", "uvicorn>=0.30,<1", "starlette>=0.40,<2"]
LITERT = ["ai-edge-litert>=2.3,<3"]  # acting from Python; else TensorFlow's deprecated tf.lite
RAY = ["ray>=2.60,<3"]
PLOT = ["matplotlib"]
VIDEO = ["imageio>=2.37,<3", "imageio-ffmpeg>=0.6,<1", "pillow"]
CMA = ["cma>=4.4,<5"]  # evolution strategies with a covariance
LAB = ["matplotlib", "scipy"]  # pictures; the best memoryless policy
TUNER = ["scipy", "scikit-learn", "matplotlib"]  # KerasTuner's BayesianOptimization; a search's picture
TEST = ["pytest", "pytest-xdist", "ruff"]

setup(
    name="kerasrl-pg",
    version="0.1.0",
    description="Policy-gradient reinforcement learning the Keras way",
    packages=find_packages(include=["kerasrl_pg", "kerasrl_pg.*"]),
    package_data={"kerasrl_pg.serving": ["*.c"], "kerasrl_pg.presets": ["*.yaml"]},
    # TensorFlow Probability 0.25 imports distutils, which Python 3.12 has only by way of
    # setuptools and 3.13 is untried with. Tested on 3.11 alone.
    python_requires=">=3.11,<3.13",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-probability[tf]>=0.25,<0.26",  # [tf]: it will not import without tf_keras
        "gymnasium>=1.4,<1.5",
        "keras-tuner>=1.4.8,<1.5",
        # TensorFlow's wheel no longer brings TensorBoard, which Keras's callback and every
        # KerasTuner search need.
        "tensorboard>=2.21",
        "absl-py",
        "pyyaml>=6,<7",  # runs as files
        "numpy",
        "setuptools; python_version >= '3.12'",  # distutils, see above
    ],
    extras_require={
        "mujoco": MUJOCO,
        "box2d": BOX2D,
        "envpool": ENVPOOL,
        "atari": ATARI,
        "minigrid": MINIGRID,
        "minari": MINARI,
        "serving": SERVING,
        "litert": LITERT,
        "ray": RAY,
        "plot": PLOT,
        "video": VIDEO,
        "cma": CMA,
        "lab": LAB,
        "tuner": TUNER,
        "test": TEST,
        "dev": TEST,
        "all": MUJOCO
        + BOX2D
        + ENVPOOL
        + ATARI
        + MINIGRID
        + MINARI
        + SERVING
        + LITERT
        + RAY
        + PLOT
        + VIDEO
        + CMA
        + LAB
        + TUNER
        + TEST,
    },
    entry_points={"console_scripts": ["kerasrl-pg=kerasrl_pg.cli:main"]},
)
