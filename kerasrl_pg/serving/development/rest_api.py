"""TensorFlow Serving's REST interface, as an ASGI application."""

import json

import numpy as np
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from kerasrl_pg.serving.development.answers import Refused, check_size
from kerasrl_pg.serving.development.grpc_api import LARGEST, metadata, status
from kerasrl_pg.serving.development.versions import AVAILABLE

CODES = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}  # Else 500.


def make_app(answers):
    """The application that gives these `Answers`."""

    def handled(handler):
        async def endpoint(request):
            body = bytearray()
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > LARGEST:
                    return _response({"error": f"A request must have at most {LARGEST} bytes."}, 413)
            try:
                return await run_in_threadpool(handler, answers, request.path_params, bytes(body))
            except Refused as error:
                return _response({"error": str(error)}, CODES.get(error.code, 500))
            except Exception as error:  # The next request is another one.
                return _response({"error": f"{type(error).__name__}: {error}"}, 500)

        return endpoint

    def route(path, handler, method):
        paths = [f"/v1/models/{{name}}{path}", f"/v1/models/{{name}}/versions/{{number:int}}{path}"]
        return [Route(each, handled(handler), methods=[method]) for each in paths]

    routes = [
        *route("/metadata", _metadata, "GET"),
        *route(":predict", _predict, "POST"),
        *route("", _status, "GET"),
        Route("/health", handled(_health), methods=["GET"]),
    ]
    missing = {404: "There is nothing at this URL.", 405: "This URL must be asked by another method."}

    async def said(request, error):
        return _response({"error": missing.get(error.status_code, error.detail)}, error.status_code)

    return Starlette(routes=routes, exception_handlers=dict.fromkeys(missing, said))


def _response(content, code=200):
    return Response(json.dumps(content), code, media_type="application/json")


def _proto(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _status(answers, path, body):
    return _response(_proto(status(answers, path["name"], path.get("number"))))


def _health(answers, path, body):
    found = [number for number, state, _ in answers.statuses(answers.name) if state == AVAILABLE]
    if not found:
        raise Refused("UNAVAILABLE", "No version is loaded.")
    return _response({"status": "AVAILABLE", "model": answers.name, "version": str(found[0])})


def _metadata(answers, path, body):
    found, signatures = metadata(answers, path["name"], path.get("number")), get_model_metadata_pb2.SignatureDefMap()
    found.metadata["signature_def"].Unpack(signatures)
    spec = {"name": path["name"], "signature_name": "", "version": str(found.model_spec.version.value)}
    return _response({"model_spec": spec, "metadata": {"signature_def": _proto(signatures)}})


def _predict(answers, path, body):
    request = _parsed(body)
    if ("instances" in request) == ("inputs" in request):
        raise Refused("INVALID_ARGUMENT", "A request must have either 'instances' or 'inputs', and not both.")
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refused("INVALID_ARGUMENT", "'signature_name' must be a text.")
    by_row = "instances" in request

    def inputs(specs):
        columns = _columns(request["instances"], specs) if by_row else _named(request["inputs"], specs)
        return {name: _array(name, value, specs.get(name)) for name, value in columns.items()}

    _, _, outputs = answers.predict(path["name"], path.get("number"), signature, inputs)
    if not by_row:
        lists = {name: array.tolist() for name, array in outputs.items()}
        return _response({"outputs": lists if len(lists) > 1 else next(iter(lists.values()))})
    rows = len(request["instances"])
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise Refused("INVALID_ARGUMENT", f"'instances' must be of an endpoint whose {name!r} has a row for each.")
    lists = [array.tolist() for array in outputs.values()]
    if len(lists) == 1:
        return _response({"predictions": lists[0]})
    return _response({"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*lists, strict=True)]})


def _parsed(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise Refused("INVALID_ARGUMENT", f"A request must be a JSON object. Received: {type(request).__name__}.")
    return request


def _named(inputs, specs):
    """Values by name: of one input a bare value will do."""
    if isinstance(inputs, dict):
        return inputs
    if len(specs) != 1:
        raise Refused("INVALID_ARGUMENT", f"'inputs' must be an object of {', '.join(sorted(specs))}.")
    return {next(iter(specs)): inputs}


def _columns(instances, specs):
    """The rows of a request as columns by name."""
    if not isinstance(instances, list) or not instances:
        raise Refused("INVALID_ARGUMENT", "'instances' must be a list of at least one row.")
    if not any(isinstance(row, dict) for row in instances):
        return _named(instances, specs)
    names = set(instances[0]) if isinstance(instances[0], dict) else set()
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or set(row) != names:
            raise Refused(
                "INVALID_ARGUMENT", f"'instances' must all have the same names. Received: others in row {number}."
            )
    return {name: [row[name] for row in instances] for name in names}


def _array(name, value, spec):
    """JSON as an array of an input's dtype."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        raise Refused("INVALID_ARGUMENT", f"`{name}` must be rows of one length.") from None
    check_size(name, array.shape)
    if spec is None:  # Which `Answers` refuses by name.
        return array
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise Refused("INVALID_ARGUMENT", f"`{name}` must be {dtype}. Received: {_what(array)}.")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise Refused("INVALID_ARGUMENT", f"`{name}` must be within {dtype}. Received: others.")
    return cast


def _what(array):
    words = {"b": "true or false", "f": "numbers that are not whole", "U": "texts", "O": "no numbers, or ragged rows"}
    return words.get(array.dtype.kind, array.dtype.name)
