"""How a client speaks to a server: gRPC with TensorFlow Serving's own messages, or REST."""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from kerasrl_pg.serving.requests import predict_request

MISSING = "gRPC must be installed to ask a server by it: pip install kerasrl-pg[serving]. Received: {}."


class Grpc:
    """TensorFlow Serving's `PredictionService`.

    Args:
        address: "host:port".
        model, version, timeout: Of `Client`.
    """

    def __init__(self, address, model, version, timeout):
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(MISSING.format(error)) from error
        self._address, self._model, self._version, self._timeout = address, model, version, timeout
        self._channel = grpc.insecure_channel(
            address,
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise _error(error.code().name, error.details(), self._address, self._timeout) from error

    def predict(self, arrays, signature, outputs):
        """Arrays by the name of the output."""
        request = predict_request(arrays, self._model, signature, self._version)
        answer = self._call(self._stub.Predict, request)
        return {name: tf.make_ndarray(answer.outputs[name]) for name in outputs}

    def signatures(self):
        """As `Client.signatures`."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        answer = self._call(self._stub.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return {
            name: {
                "inputs": {key: _proto_spec(info) for key, info in signature.inputs.items() if info.name},
                "outputs": {key: _proto_spec(info) for key, info in signature.outputs.items() if info.name},
            }
            for name, signature in found.signature_def.items()
            if not name.startswith("__")
        }

    def close(self):
        """Closes the channel."""
        self._channel.close()


class Rest:
    """TensorFlow Serving's REST interface, in its column format.

    Args:
        address: "http://host:port".
        model, version, timeout: Of `Client`.
    """

    def __init__(self, address, model, version, timeout):
        import requests

        self._address, self._timeout = address, timeout
        self._url = f"{address.rstrip('/')}/v1/models/{model}" + ("" if version is None else f"/versions/{version}")
        self._session = requests.Session()

    def _ask(self, method, path, body=None):
        import requests

        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=self._timeout)
            content = answer.json()
        except requests.Timeout as error:
            raise _error("DEADLINE_EXCEEDED", str(error), self._address, self._timeout) from error
        except requests.exceptions.JSONDecodeError as error:
            raise RuntimeError(
                f"The server at {self._address} must answer in JSON. Received: {answer.status_code} "
                f"{answer.text[:200]!r}. Is it TensorFlow Serving's REST port?"
            ) from error
        except requests.RequestException as error:
            raise _error("UNAVAILABLE", str(error), self._address, self._timeout) from error
        if answer.status_code != 200:
            codes = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
            details = content.get("error", content) if isinstance(content, dict) else content
            raise _error(codes.get(answer.status_code, "INTERNAL"), details, self._address, self._timeout)
        return content

    def predict(self, arrays, signature, outputs):
        """Arrays by the name of the output."""
        body = {"signature_name": signature, "inputs": {name: array.tolist() for name, array in arrays.items()}}
        found = self._ask("POST", ":predict", body)["outputs"]
        if len(outputs) == 1:  # Of one output REST gives the values alone.
            found = {next(iter(outputs)): found}
        return {name: np.array(found[name], dtype) for name, (dtype, _) in outputs.items()}

    def signatures(self):
        """As `Client.signatures`."""
        found = self._ask("GET", "/metadata")["metadata"]["signature_def"]["signature_def"]
        return {
            name: {
                side: {key: _json_spec(info) for key, info in signature.get(side, {}).items() if info.get("name")}
                for side in ("inputs", "outputs")
            }
            for name, signature in found.items()
            if not name.startswith("__")
        }

    def close(self):
        """Closes the connections."""
        self._session.close()


def _proto_spec(info):
    """`(dtype, shape)` of a `TensorInfo`."""
    sizes = [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    return np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype), tuple(sizes)


def _json_spec(info):
    """`(dtype, shape)` of a `TensorInfo` in JSON."""
    sizes = [int(dim["size"]) for dim in info["tensor_shape"].get("dim", [])]
    dtype = tf.as_dtype(types_pb2.DataType.Value(info["dtype"]))
    return np.dtype(dtype.as_numpy_dtype), tuple(None if size < 0 else size for size in sizes)


def _error(code, details, address, timeout):
    """The exception for what a server, or the way to it, answers."""
    details = str(details).strip()
    if code == "DEADLINE_EXCEEDED":
        return TimeoutError(
            f"The server at {address} must answer within timeout={timeout} seconds. Received: nothing. Raise "
            "`timeout`, or look at the server's load."
        )
    if code == "UNAVAILABLE":
        return ConnectionError(
            f"The server at {address} must be there to be asked. Received: {details[:300]}. Start one: "
            "kerasrl-pg serve --model=FOLDER."
        )
    if code == "NOT_FOUND":
        return LookupError(
            f"The server at {address} must have what it is asked for. Received: {details}. Name the model and the "
            "version: Client(address, model=..., version=...)."
        )
    if code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return ValueError(f"The server at {address} must accept what it is asked. Received: {details}.")
    return RuntimeError(f"The server at {address} must answer. Received: {code}: {details}.")
