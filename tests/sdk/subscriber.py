"""Subscribers by the official Python SDK, for the checker: each thing the application is told is one JSON line, an
entry of ../src/checker/history.rs. Ends with its stdin.

Usage: python subscriber.py json|protobuf '{"seats":[{"who":"py-0","url":"ws://..."}],"channels":["news"]}'
"""

import asyncio
import json
import sys

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

PROTOBUF = sys.argv[1] == "protobuf"


def note(entry):
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


class ClientEars(ClientEventHandler):
    def __init__(self, who):
        self.who = who

    async def on_disconnected(self, ctx):
        note({"what": "disconnected", "who": self.who, "why": f"{ctx.code}: {ctx.reason}"})


class Ears(SubscriptionEventHandler):
    def __init__(self, who, channel):
        self.place = {"who": who, "channel": channel}
        # What the SDK will ask for: the last position that the application saw.
        self.since = None
        self.live = False

    def note(self, what, **more):
        note({"what": what, **self.place, **more})

    async def on_subscribing(self, ctx):
        if self.live:
            self.note("unsubscribed", code=ctx.code)
        self.live = False
        self.note("asked", since=self.since)

    async def on_subscribed(self, ctx):
        self.live = True
        at = ctx.stream_position
        position = None if at is None else {"offset": at.offset, "epoch": at.epoch}
        self.since = dict(position) if ctx.recoverable else None
        self.note(
            "subscribed",
            position=position,
            was_recovering=ctx.was_recovering,
            recovered=ctx.recovered,
            publications=None,
        )

    async def on_publication(self, ctx):
        data = json.loads(ctx.pub.data) if PROTOBUF else ctx.pub.data
        offset = ctx.pub.offset or 0
        if self.since is not None and offset > 0:
            self.since["offset"] = offset
        self.note("delivered", id=data["id"], offset=offset)

    async def on_unsubscribed(self, ctx):
        self.live = False
        self.note("unsubscribed", code=ctx.code)


async def main():
    plan = json.loads(sys.argv[2])
    clients = []
    for seat in plan["seats"]:
        client = Client(
            seat["url"],
            events=ClientEars(seat["who"]),
            use_protobuf=PROTOBUF,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            max_server_ping_delay=4.0,
            timeout=4.0,
            proxy=None,
        )
        clients.append(client)
        for channel in plan["channels"]:
            sub = client.new_subscription(
                channel,
                events=Ears(seat["who"], channel),
                min_resubscribe_delay=0.05,
                max_resubscribe_delay=0.5,
            )
            await sub.subscribe()
        await client.connect()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


asyncio.run(main())
