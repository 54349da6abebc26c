"""A server for development: it speaks TensorFlow Serving's two protocols, and stands in for it where it is not.

It answers one request after the other, as Python does: no batching, no GPU scheduling, no monitoring, no encryption.
What serves others is TensorFlow Serving, of the same folder.
"""

from kerasrl_pg.serving.development.server import DevelopmentServer

__all__ = ["DevelopmentServer"]
