"""Requests to an exported policy: those it is warmed up with, and examples for REST and gRPC."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2

WARM_UP = "assets.extra/tf_serving_warmup_requests"
REST, GRPC = "assets.extra/request_rest.json", "assets.extra/request_grpc.json"
MODEL = "default"  # Ours, as TensorFlow Serving calls a model that nobody named.


def write_requests(folder, given):
    """Writes example requests, and where `tensorflow-serving-api` is installed those that a server warms up with.

    Args:
        folder: Of an export, which has an `assets.extra`.
        given: Arrays by the name of the input, by the name of the endpoint.

    Returns:
        A sentence about the warm-up, for the card.
    """
    folder, endpoint = Path(folder), "serving_default"
    inputs = given[endpoint]
    rest = {"signature_name": endpoint, "inputs": {name: array.tolist() for name, array in inputs.items()}}
    (folder / REST).write_text(json.dumps(rest) + "\n", encoding="utf8")
    # What `google.protobuf.json_format` makes of a PredictRequest, and `grpcurl` takes.
    protos = {name: json_format.MessageToDict(tensor_proto(array)) for name, array in inputs.items()}
    grpc = {"modelSpec": {"name": MODEL, "signatureName": endpoint}, "inputs": protos}
    (folder / GRPC).write_text(json.dumps(grpc, indent=1) + "\n", encoding="utf8")
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return "none, since tensorflow-serving-api was not installed: pip install kerasrl-pg[serving]"
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        for name, arrays in given.items():
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(predict_request(arrays, MODEL, name))
            writer.write(log.SerializeToString())
    return f"one of each endpoint: {', '.join(given)}"


def tensor_proto(array):
    """A `TensorProto` of an array, its numbers as they lie in memory."""
    array = np.asarray(array)
    return tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
        tensor_content=array.tobytes(),
    )


def predict_request(inputs, model=MODEL, signature="serving_default", version=None):
    """A `PredictRequest`; needs `tensorflow-serving-api`.

    Args:
        inputs: Arrays by name.
        model, signature: Names.
        version: Of the model, or None for the server's choice.
    """
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tensor_proto(array))
    return request


def read_warm_up(folder):
    """The `PredictRequest`s that a server warms up with; none where there is no such file."""
    path = Path(folder) / WARM_UP
    if not path.exists():
        return []
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs if log.HasField("predict_log")]
