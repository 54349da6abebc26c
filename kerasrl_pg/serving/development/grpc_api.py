"""TensorFlow Serving's gRPC services, by its official generated code."""

import concurrent.futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from kerasrl_pg.serving.development.answers import Refused, check_size
from kerasrl_pg.serving.requests import tensor_proto

THREADS = 16  # Ours: requests wait for CPUs, and not for each other.
LARGEST = 2**28  # Bytes of a message, as of what REST takes.


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`PredictionService`: Predict and GetModelMetadata.

    Args:
        answers: The `Answers`.
    """

    def __init__(self, answers):
        self._answers = answers

    def Predict(self, request, context):
        """Answers with the outputs of one endpoint."""
        with _Refusing(context):
            spec = request.model_spec
            number, signature, outputs = self._answers.predict(
                spec.name,
                _number(spec),
                spec.signature_name,
                lambda specs: {name: _array(name, proto) for name, proto in request.inputs.items()},
                list(request.output_filter),
            )
            response = predict_pb2.PredictResponse()
            response.model_spec.name, response.model_spec.signature_name = spec.name, signature
            response.model_spec.version.value = number
            for name, array in outputs.items():
                response.outputs[name].CopyFrom(tensor_proto(array))
            return response

    def GetModelMetadata(self, request, context):
        """Answers with the signatures."""
        with _Refusing(context):
            return metadata(self._answers, request.model_spec.name, _number(request.model_spec), request.metadata_field)


class Model(model_service_pb2_grpc.ModelServiceServicer):
    """`ModelService`: GetModelStatus.

    Args:
        answers: The `Answers`.
    """

    def __init__(self, answers):
        self._answers = answers

    def GetModelStatus(self, request, context):
        """Answers with the state of each version."""
        with _Refusing(context):
            return status(self._answers, request.model_spec.name, _number(request.model_spec))


def metadata(answers, name, number, fields=("signature_def",)):
    """A `GetModelMetadataResponse`."""
    if list(fields) != ["signature_def"]:
        raise Refused("INVALID_ARGUMENT", f"`metadata_field` must be signature_def. Received: {', '.join(fields)}.")
    response, found = get_model_metadata_pb2.GetModelMetadataResponse(), get_model_metadata_pb2.SignatureDefMap()
    with answers.using(name, number) as version:
        response.model_spec.name, response.model_spec.version.value = name, version.number
        for key, definition in version.signature_defs.items():
            found.signature_def[key].CopyFrom(definition)
    response.metadata["signature_def"].Pack(found)
    return response


def status(answers, name, number=None):
    """A `GetModelStatusResponse`."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for each, state, error in answers.statuses(name, number):
        added = response.model_version_status.add(version=each, state=state)
        if error:
            added.status.error_code, added.status.error_message = 2, error  # UNKNOWN
        else:
            added.status.error_code = 0
    return response


def make_server(answers, host, port):
    """`(server, port)`: a gRPC server that is not started yet.

    Raises:
        OSError: If the port is taken.
    """
    options = [
        ("grpc.so_reuseport", 0),  # Else two servers share a port, and requests go to either.
        ("grpc.max_receive_message_length", LARGEST),
        ("grpc.max_send_message_length", -1),
    ]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(THREADS), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(answers), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Model(answers), server)
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise OSError(f"The gRPC port must be free. Received: {host}:{port}, which is taken. Choose another --port.")
    return server, bound


def _number(spec):
    if spec.HasField("version_label"):
        raise Refused("INVALID_ARGUMENT", "Versions must be asked for by number. Received: a label.")
    return spec.version.value if spec.HasField("version") else None


def _array(name, proto):
    check_size(name, [dim.size for dim in proto.tensor_shape.dim])
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, KeyError) as error:
        raise Refused("INVALID_ARGUMENT", f"`{name}` must be a tensor. Received: one that says {error}.") from error


class _Refusing:
    """Ends a call with the status of what is raised inside."""

    def __init__(self, context):
        self._context = context

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if isinstance(error, Refused):
            self._context.abort(grpc.StatusCode[error.code], str(error))
        if isinstance(error, Exception):
            self._context.abort(grpc.StatusCode.INTERNAL, f"{kind.__name__}: {error}")
