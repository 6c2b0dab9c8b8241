"""Clients of the official Python SDK, driven by JSON lines on stdin: see ../src/sdk.rs.

Usage: python client.py json|protobuf
"""

import asyncio
import collections
import json
import sys
import time

from centrifuge import (
    Client,
    ClientEventHandler,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

PROTOBUF = sys.argv[1:] == ["protobuf"]
PATIENCE = 20.0

clients = {}
fleets = {}


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def encode(data):
    """Over Protobuf the SDK hands bytes through; the test speaks JSON either way."""
    return json.dumps(data).encode() if PROTOBUF else data


def decode(data):
    return json.loads(data) if PROTOBUF and data is not None else data


def who(info):
    return None if info is None else {"client": info.client, "user": info.user}


class Ears(ClientEventHandler):
    def __init__(self, name):
        self.name = name
        self.first = asyncio.get_running_loop().create_future()

    def say(self, event, **more):
        say({"event": event, "client": self.name, **more})

    async def on_connecting(self, ctx):
        self.say("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx):
        self.say("connected", id=ctx.client)
        if not self.first.done():
            self.first.set_result({"id": ctx.client, "data": decode(ctx.data or None)})

    async def on_disconnected(self, ctx):
        self.say("disconnected", code=ctx.code, reason=ctx.reason)
        if not self.first.done():
            self.first.set_exception(Refusal(ctx.code, ctx.reason))

    async def on_error(self, ctx):
        self.say("error", code=ctx.code, message=str(ctx.error))

    async def on_subscribed(self, ctx):
        self.say("server-subscribed", channel=ctx.channel)

    async def on_unsubscribed(self, ctx):
        self.say("server-unsubscribed", channel=ctx.channel)

    async def on_publication(self, ctx):
        self.say("publication", channel=ctx.channel, data=decode(ctx.pub.data))


class SubscriptionEars(SubscriptionEventHandler):
    def __init__(self, name, channel):
        self.name = name
        self.channel = channel
        self.outcome = None
        self.left = None

    def await_outcome(self):
        self.outcome = asyncio.get_running_loop().create_future()
        return self.outcome

    def settle(self, error=None):
        if self.outcome is not None and not self.outcome.done():
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)

    def say(self, event, **more):
        say({"event": event, "client": self.name, "channel": self.channel, **more})

    async def on_subscribing(self, ctx):
        self.say("subscribing", code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx):
        at = ctx.stream_position
        self.say(
            "subscribed",
            data=decode(ctx.data or None),
            recoverable=ctx.recoverable,
            was_recovering=ctx.was_recovering,
            recovered=ctx.recovered,
            position=None if at is None else {"offset": at.offset, "epoch": at.epoch},
        )
        self.settle()

    async def on_unsubscribed(self, ctx):
        self.say("unsubscribed", code=ctx.code, reason=ctx.reason)
        self.settle(Refusal(ctx.code, ctx.reason))

    async def on_join(self, ctx):
        self.say("join", info=who(ctx.info))

    async def on_leave(self, ctx):
        self.say("leave", info=who(ctx.info))

    async def on_publication(self, ctx):
        self.say(
            "publication",
            data=decode(ctx.pub.data),
            offset=ctx.pub.offset,
            info=who(ctx.pub.info),
        )

    async def on_error(self, ctx):
        self.say("subscription-error", code=ctx.code, message=str(ctx.error))
        self.settle(Refusal(ctx.code, str(ctx.error)))


class Member(SubscriptionEventHandler, ClientEventHandler):
    """One of a fleet: only keeps what it hears."""

    def __init__(self):
        self.heard = []
        self.drops = 0

    async def on_connecting(self, ctx):
        self.drops += ctx.code != 0

    async def on_publication(self, ctx):
        self.heard.append(decode(ctx.pub.data))


def create(url, events, options):
    options = dict(options or {})
    return Client(
        url,
        events=events,
        use_protobuf=PROTOBUF,
        min_reconnect_delay=options.get("minReconnectDelay", 50) / 1000,
        max_reconnect_delay=options.get("maxReconnectDelay", 500) / 1000,
        proxy=None,
        headers=options.get("headers"),
        data=encode(options["data"]) if "data" in options else None,
    )


async def dial(command):
    name = command["client"]
    ears = Ears(name)
    client = create(command["url"], ears, command.get("options"))
    clients[name] = client
    await client.connect()
    return ears


async def connect(command):
    ears = await dial(command)
    return await asyncio.wait_for(ears.first, PATIENCE)


async def only_dial(command):
    await dial(command)


async def subscribe(command):
    client, channel = clients[command["client"]], command["channel"]
    sub = client.get_subscription(channel)
    if sub is None:
        ears = SubscriptionEars(command["client"], channel)
        sub = client.new_subscription(channel, events=ears, min_resubscribe_delay=0.05, max_resubscribe_delay=0.5)
    outcome = sub.events.await_outcome()
    await sub.subscribe()
    await asyncio.wait_for(outcome, PATIENCE)


async def unsubscribe(command):
    await clients[command["client"]].get_subscription(command["channel"]).unsubscribe()


async def publish(command):
    await clients[command["client"]].publish(command["channel"], encode(command["data"]))


async def burst(command):
    client = clients[command["client"]]

    async def one(data):
        try:
            await client.publish(command["channel"], encode(data))
            return 0
        except ReplyError as error:
            return error.code

    return await asyncio.gather(*(one(data) for data in command["data"]))


async def rpc(command):
    result = await clients[command["client"]].rpc(command["method"], encode(command["data"]))
    return decode(result.data)


async def presence(command):
    result = await clients[command["client"]].presence(command["channel"])
    return {client: who(info) for client, info in result.clients.items()}


async def presence_stats(command):
    result = await clients[command["client"]].presence_stats(command["channel"])
    return {"clients": result.num_clients, "users": result.num_users}


async def history(command):
    options = dict(command.get("options", {"limit": 10}))
    if since := options.pop("since", None):
        options["since"] = StreamPosition(**since)
    result = await clients[command["client"]].history(command["channel"], **options)
    return {
        "publications": [{"data": decode(pub.data), "offset": pub.offset} for pub in result.publications],
        "position": {"offset": result.offset, "epoch": result.epoch},
    }


async def disconnect(command):
    await clients[command["client"]].disconnect()


async def state(command):
    return clients[command["client"]].state.value


async def fleet(command):
    members = fleets.setdefault(command["name"], [])

    async def one():
        member = Member()
        client = create(command["url"], member, command.get("options"))
        members.append(member)
        sub = client.new_subscription(command["channel"], events=member)
        await client.connect()
        await sub.subscribe()
        await client.ready(PATIENCE)
        await sub.ready(PATIENCE)
        clients[f"{command['name']}-{len(clients)}"] = client

    async def lane(start):
        for _ in range(start, command["count"], 10):
            await one()

    await asyncio.wait_for(asyncio.gather(*(lane(start) for start in range(10))), PATIENCE * 3)


async def heard(command):
    members, least = fleets[command["name"]], command["least"]
    deadline = time.monotonic() + PATIENCE * 2
    while any(len(member.heard) < least for member in members):
        if time.monotonic() > deadline:
            short = [member.heard for member in members if len(member.heard) < least]
            raise Refusal(-1, f"{len(short)} of {len(members)} heard fewer than {least}, one of them {short[0]}")
        await asyncio.sleep(0.02)
    groups = collections.Counter(json.dumps(member.heard) for member in members)
    return [{"sequence": json.loads(key), "clients": count} for key, count in groups.items()]


async def drops(command):
    return sum(member.drops for member in fleets[command["name"]])


COMMANDS = {
    "connect": connect,
    "dial": only_dial,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "publish": publish,
    "burst": burst,
    "rpc": rpc,
    "presence": presence,
    "presence_stats": presence_stats,
    "history": history,
    "disconnect": disconnect,
    "state": state,
    "fleet": fleet,
    "heard": heard,
    "drops": drops,
}


async def run(command):
    try:
        ok = await COMMANDS[command["do"]](command)
        say({"re": command["id"], "ok": ok})
    except (Refusal, ReplyError) as error:
        say({"re": command["id"], "error": {"code": error.code, "message": str(error)}})
    except Exception as error:  # noqa: BLE001 - whatever it is, the test must hear of it
        say({"re": command["id"], "error": {"code": -1, "message": f"{type(error).__name__}: {error}"}})


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set()
    while line := await reader.readline():
        task = loop.create_task(run(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


asyncio.run(main())
