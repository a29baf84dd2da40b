"""A gRPC service: service.py [CERTIFICATE KEY]

It prints its port, and then one line for each call of Hold that ended early. Each line of its standard input is a
command: "stop" lets running calls end and refuses further ones. The service ends with its standard input.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def facts(context):
    sent = context.invocation_metadata()
    seen = [(f"seen-{name}", value) for name, value in sent if name.startswith(("x-auth-", "x-own", "te"))]
    return seen + [("sum-bin", b"\x00\xff")]


def unary(request, context):
    context.set_trailing_metadata(facts(context))
    status = dict(context.invocation_metadata()).get("x-own-status")
    if status is not None and status != "0":
        context.abort(CODES[int(status)], f"status {status} é")
    return request


def download(request, context):
    count, size = map(int, request.split())
    for number in range(count):
        yield bytes([number % 256]) * size


def upload(requests, context):
    return str(sum(map(len, requests))).encode()


def talk(requests, context):
    for request in requests:
        if request == b"abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "as asked")
        yield request


def hold(request, context):
    ended = threading.Event()
    # The call may have ended before this line. grpcio then keeps no callback.
    if not context.add_callback(ended.set):
        ended.set()
    try:
        if request != b"silent":
            yield b"begun"
        ended.wait()
    finally:
        say(f"ended {request.decode()}")


def finish(request, context):
    """Ends a second after it has begun."""
    yield b"begun"
    threading.Event().wait(1)
    yield b"finished"


def main():
    server = grpc.server(ThreadPoolExecutor(32))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Download": grpc.unary_stream_rpc_method_handler(download),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Hold": grpc.unary_stream_rpc_method_handler(hold),
        "Finish": grpc.unary_stream_rpc_method_handler(finish),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Calls", methods)])
    if len(sys.argv) > 1:
        certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(str(port))
    for command in sys.stdin:
        if command.strip() == "stop":
            server.stop(20)
            say("stopping")
    server.stop(0)


main()
