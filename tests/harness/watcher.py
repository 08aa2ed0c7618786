"""A validator process for tests: becomes a user, watches tasks, and writes what it hears.

Usage: watcher.py SOCKET UID AUDIENCE… Each line out is JSON: {"message": HEX of a TaskFeed}, or at the end {"code": NAME,
"details": SENTENCE}.
"""

import json
import os
import sys

import grpc
from sojourn._pb.sojourn.v1 import validation_pb2 as pb

METADATA = (("workload.spiffe.io", "true"),)


def say(**value):
    print(json.dumps(value), flush=True)


def main(socket, uid, audiences):
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_stream(
            "/sojourn.v1.Validation/WatchTasks", request_serializer=pb.WatchTasksRequest.SerializeToString
        )(pb.WatchTasksRequest(audiences=audiences), metadata=METADATA)
        try:
            for message in call:  # as it came: there is no deserializer
                say(message=message.hex())
        except grpc.RpcError as error:
            say(code=error.code().name, details=error.details())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
