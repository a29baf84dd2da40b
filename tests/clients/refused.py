"""httpx: posts that are refused before their body is read, over HTTP/1.1 and HTTP/2. Prints a line for each."""

import asyncio
import sys

import httpx

URL = sys.argv[1]


async def main():
    for version, options in [("http/1.1", {"http2": False}), ("h2", {"http1": False, "http2": True})]:
        async with httpx.AsyncClient(verify=False, timeout=20, **options) as client:
            for size in [1000, 60_000, 300_000, 3_000_000]:
                try:
                    refused = (await client.post(URL + "/guarded", content=b"x" * size)).status_code
                    served = (await client.get(URL + "/open")).status_code
                except httpx.HTTPError as error:
                    refused, served = repr(error), None
                verdict = "ok" if (refused, served) == (401, 200) else "WRONG"
                print("httpx", version, size, refused, served, verdict)
            # Many at once on one connection: a stream whose body is whole is not reset before its end.
            posts = [client.post(URL + "/open", content=b"x" * 200_000) for _ in range(100)]
            answers = await asyncio.gather(*posts, return_exceptions=True)
            wrong = {repr(a) for a in answers if getattr(a, "status_code", None) != 200}
            print("httpx", version, "100 at once", *wrong, "ok" if not wrong else "WRONG")


asyncio.run(main())
