"""A gRPC server with the standard health service.

It prints its port. Each line of its standard input is a service and its status, such as "test.Calls NOT_SERVING". The name
"-" is the whole server. The server prints "ok" for each line, and ends with its standard input.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(str(port))
    for line in sys.stdin:
        service, status = line.split()
        status = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
        servicer.set("" if service == "-" else service, status)
        say("ok")
    server.stop(0)


main()
