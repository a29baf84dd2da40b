"""Python's websockets as a service and as a client: websocket.py serve | talk URL TOKEN

The service echoes messages; it ends with its standard input. The client prints one line for each check.
"""

import asyncio
import os
import sys

import websockets


async def serve():
    async def echo(socket):
        try:
            async for message in socket:
                await socket.send(message)
        except websockets.ConnectionClosed:
            pass

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def talk(url, token):
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, additional_headers=headers, max_size=None) as socket:
        print("extensions", [extension.name for extension in socket.protocol.extensions], "ok")
        for name, message in [
            ("text", "grüße"),
            ("empty", ""),
            ("binary", os.urandom(1 << 20)),
            ("repetitive", b"a" * (1 << 20)),
        ]:
            await socket.send(message)
            print(name, "ok" if await socket.recv() == message else "differs")
        await socket.send(["a", "fragmented", "message"])
        print("fragments", "ok" if await socket.recv() == "afragmentedmessage" else "differs")
        await (await socket.ping())
        print("ping ok")
    print("close", socket.close_code, "ok" if socket.close_code == 1000 else "differs")
    try:
        await websockets.connect(url)
        print("anonymous differs")
    except websockets.InvalidStatus as refused:
        print("anonymous", "ok" if refused.response.status_code == 401 else "differs")


asyncio.run(serve() if sys.argv[1] == "serve" else talk(*sys.argv[2:]))
