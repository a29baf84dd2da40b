"""A gRPC client: client.py ADDRESS TOKEN CHECK...

It makes the calls of each check through the gateway, and prints one line for each. The line ends with "ok", or says what
was seen instead. `hold` and `finish` print "begun" before their call ends.
"""

import queue
import sys
import threading
import time

import grpc

channel = grpc.insecure_channel(
    sys.argv[1], options=[("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
)
own = [("authorization", f"Bearer {sys.argv[2]}"), ("x-own", "1"), ("x-auth-roles", "forged")]


def say(*words):
    print(*words, flush=True)


def is_ok(name, seen, expected):
    say(name, "ok" if seen == expected else f"is {seen!r}, not {expected!r}")


def path(name):
    return f"/test.Calls/{name}"


def status_of(call):
    """Returns the code and the details with which a call ends."""
    try:
        for _ in call:
            pass
        return (call.code().name, call.details())
    except grpc.RpcError as error:
        return (error.code().name, error.details())


def kinds():
    large = bytes(range(256)) * 4096
    answer, call = channel.unary_unary(path("Unary")).with_call(large, metadata=own)
    is_ok("unary", answer, large)
    is_ok(
        "trailers",
        sorted(map(tuple, call.trailing_metadata())),
        [("seen-x-auth-issuer", "https://id.test/"), ("seen-x-auth-subject", "ada"), ("seen-x-own", "1"), ("sum-bin", b"\x00\xff")],
    )
    parts = list(channel.unary_stream(path("Download"))(b"300 5000", metadata=own))
    is_ok("download", parts, [bytes([number % 256]) * 5000 for number in range(300)])
    uploaded = channel.stream_unary(path("Upload"))((b"x" * 5000 for _ in range(300)), metadata=own)
    is_ok("upload", uploaded, b"1500000")
    is_ok("empty", channel.unary_unary(path("Unary"))(b"", metadata=own), b"")


def talk():
    """Each message is answered before the next one is sent."""
    outgoing = queue.Queue()
    answers = channel.stream_stream(path("Talk"))(iter(outgoing.get, None), metadata=own)
    for message in [b"one", b"two", b"", b"x" * (1 << 20), b"five"]:
        outgoing.put(message)
        is_ok("talk", next(answers), message)
    outgoing.put(None)
    is_ok("end", status_of(answers), ("OK", ""))
    outgoing = queue.Queue()
    answers = channel.stream_stream(path("Talk"))(iter(outgoing.get, None), metadata=own)
    outgoing.put(b"abort")
    is_ok("abort", status_of(answers), ("DATA_LOSS", "as asked"))
    outgoing.put(None)


def statuses():
    for code in grpc.StatusCode:
        number = str(code.value[0])
        call = channel.unary_unary(path("Unary")).future(b"x", metadata=own + [("x-own-status", number)])
        expected = (code.name, f"status {number} é" if code.value[0] else "")
        is_ok(f"status {number}", (call.code().name, call.details()), expected)


def deadline():
    for request, timeout in [(b"silent", 2), (b"speaks", 2)]:
        began = time.monotonic()
        seen = status_of(channel.unary_stream(path("Hold"))(request, metadata=own, timeout=timeout))
        is_ok("deadline", (seen[0], time.monotonic() - began < 15), ("DEADLINE_EXCEEDED", True))


def cancel():
    call = channel.unary_stream(path("Hold"))(b"cancelled", metadata=own)
    is_ok("begun", next(call), b"begun")
    call.cancel()
    is_ok("cancel", call.code().name, "CANCELLED")


def refused():
    call = channel.unary_unary(path("Unary")).future(b"x")
    is_ok("no token", (call.code().name, call.details()), ("UNAUTHENTICATED", "missing_token"))
    call = channel.unary_unary("/test.Calls/Admin").future(b"x", metadata=own)
    is_ok("no role", (call.code().name, call.details()), ("PERMISSION_DENIED", "insufficient_role"))


def hold():
    call = channel.unary_stream(path("Hold"))(b"held", metadata=own)
    say(next(call).decode())
    say("hold", *status_of(call))


def finish():
    call = channel.unary_stream(path("Finish"))(b"", metadata=own)
    say(next(call).decode())
    say("finish", next(call).decode(), *status_of(call))


def many():
    """Calls of many threads over one connection."""
    wrong = []

    def work(number):
        for round in range(50):
            message = f"{number} {round}".encode()
            if channel.unary_unary(path("Unary"))(message, metadata=own) != message:
                wrong.append(message)

    threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_ok("many", wrong, [])


for check in sys.argv[3:]:
    globals()[check]()
