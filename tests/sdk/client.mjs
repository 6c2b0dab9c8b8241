// Clients of the official JavaScript SDK, driven by JSON lines on stdin: see ../src/sdk.rs.
//
// Usage: node client.mjs json|protobuf

import { createInterface } from 'node:readline';
import WebSocket from 'ws';
import * as overJson from 'centrifuge';
import * as overProtobuf from 'centrifuge/build/protobuf';

const protobuf = process.argv[2] === 'protobuf';
const { Centrifuge } = protobuf ? overProtobuf : overJson;
const PATIENCE = 20_000;

// Over Protobuf the SDK hands bytes through; the test speaks JSON either way.
const encode = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
const decode = (data) => {
  if (!protobuf || data === undefined) return data;
  return data.length === 0 ? undefined : JSON.parse(new TextDecoder().decode(data));
};

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const clients = new Map();
const fleets = new Map();

class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const within = (ms, what, promise) => {
  let timer;
  const late = new Promise((_, no) => { timer = setTimeout(() => no(new Refusal(-1, `not in time: ${what}`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const known = (name) => {
  const found = clients.get(name);
  if (!found) throw new Refusal(-1, `no client ${name}`);
  return found;
};

// `headers` go with the handshake, as a browser sends cookies; `data` with the connect.
function create(url, options = {}) {
  const { minReconnectDelay = 50, maxReconnectDelay = 500, headers, data, ...rest } = options;
  const websocket = headers
    ? class extends WebSocket { constructor(to, protocols) { super(to, protocols, { headers }); } }
    : WebSocket;
  const said = data === undefined ? {} : { data: encode(data) };
  return new Centrifuge(url, { websocket, minReconnectDelay, maxReconnectDelay, ...said, ...rest });
}

const who = (info) => ({ client: info.client, user: info.user });

// Over Protobuf an offset is no plain number.
const position = (it) => (it ? { offset: Number(it.offset), epoch: it.epoch } : null);

// Resolves with the context of the first event in `good`, rejects with that of the first in `bad`.
const first = (emitter, good, bad) => new Promise((yes, no) => {
  for (const name of good) emitter.once(name, yes);
  for (const name of bad) emitter.once(name, (ctx) => no(new Refusal(ctx.code, ctx.reason)));
});

function listen(client, name) {
  for (const event of ['connecting', 'connected', 'disconnected']) {
    client.on(event, (ctx) => say({ event, client: name, code: ctx.code, reason: ctx.reason, id: ctx.client }));
  }
  client.on('error', (ctx) => say({ event: 'error', client: name, type: ctx.type, code: ctx.error?.code, message: ctx.error?.message }));
  client.on('message', (ctx) => say({ event: 'message', client: name, data: decode(ctx.data) }));
  client.on('subscribed', (ctx) => say({ event: 'server-subscribed', client: name, channel: ctx.channel }));
  client.on('unsubscribed', (ctx) => say({ event: 'server-unsubscribed', client: name, channel: ctx.channel }));
  client.on('publication', (ctx) => say({ event: 'publication', client: name, channel: ctx.channel, data: decode(ctx.data) }));
}

function subscription(client, name, channel) {
  const sub = client.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500 });
  for (const event of ['subscribing', 'unsubscribed']) {
    sub.on(event, (ctx) => say({ event, client: name, channel, code: ctx.code, reason: ctx.reason }));
  }
  sub.on('subscribed', (ctx) => say({
    event: 'subscribed', client: name, channel, data: decode(ctx.data), recoverable: ctx.recoverable,
    was_recovering: ctx.wasRecovering, recovered: ctx.recovered, position: position(ctx.streamPosition),
  }));
  for (const event of ['join', 'leave']) {
    sub.on(event, (ctx) => say({ event, client: name, channel, info: who(ctx.info) }));
  }
  sub.on('error', (ctx) => say({ event: 'subscription-error', client: name, channel, code: ctx.error?.code, message: ctx.error?.message }));
  sub.on('publication', (ctx) => say({
    event: 'publication', client: name, channel, data: decode(ctx.data), tags: ctx.tags, offset: ctx.offset && Number(ctx.offset),
    info: ctx.info && who(ctx.info),
  }));
  return sub;
}

const commands = {
  async connect({ client: name, url, options }) {
    const client = create(url, options);
    clients.set(name, client);
    listen(client, name);
    const connected = first(client, ['connected'], ['disconnected']);
    client.connect();
    const ctx = await within(PATIENCE, `${name} connects`, connected);
    return { id: ctx.client, transport: ctx.transport, data: decode(ctx.data) };
  },

  // Begins to connect and does not wait.
  async dial({ client: name, url, options }) {
    const client = create(url, options);
    clients.set(name, client);
    listen(client, name);
    client.connect();
  },

  async subscribe({ client: name, channel }) {
    const client = known(name);
    const sub = client.getSubscription(channel) ?? subscription(client, name, channel);
    const subscribed = first(sub, ['subscribed'], ['unsubscribed']);
    const refused = new Promise((_, no) => sub.once('error', (ctx) => no(new Refusal(ctx.error.code, ctx.error.message))));
    sub.subscribe();
    await within(PATIENCE, `${name} subscribes to ${channel}`, Promise.race([subscribed, refused]));
  },

  async unsubscribe({ client: name, channel }) {
    const sub = known(name).getSubscription(channel);
    const done = first(sub, ['unsubscribed'], []);
    sub.unsubscribe();
    await within(PATIENCE, `${name} unsubscribes from ${channel}`, done);
  },

  async publish({ client: name, channel, data }) {
    await known(name).publish(channel, encode(data));
  },

  // All in one frame, as the SDK batches; each outcome in order.
  async burst({ client: name, channel, data }) {
    const client = known(name);
    client.startBatching();
    const sent = data.map((one) => client.publish(channel, encode(one)));
    client.stopBatching();
    const outcomes = await Promise.allSettled(sent);
    return outcomes.map((one) => (one.status === 'fulfilled' ? 0 : one.reason.code));
  },

  async send({ client: name, data }) {
    await known(name).send(encode(data));
  },

  async rpc({ client: name, method, data }) {
    const result = await known(name).rpc(method, encode(data));
    return decode(result.data);
  },

  async presence({ client: name, channel }) {
    const { clients: there } = await known(name).presence(channel);
    return Object.fromEntries(Object.entries(there).map(([id, info]) => [id, who(info)]));
  },

  async presence_stats({ client: name, channel }) {
    const { numClients, numUsers } = await known(name).presenceStats(channel);
    return { clients: numClients, users: numUsers };
  },

  async history({ client: name, channel, options = { limit: 10 } }) {
    const { publications, offset, epoch } = await known(name).history(channel, options);
    return {
      publications: publications.map((it) => ({ data: decode(it.data), offset: Number(it.offset) })),
      position: position({ offset, epoch }),
    };
  },

  async disconnect({ client: name }) {
    const client = known(name);
    const done = first(client, ['disconnected'], []);
    client.disconnect();
    await within(PATIENCE, `${name} disconnects`, done);
  },

  async state({ client: name }) {
    return known(name).state;
  },

  async fleet({ name, count, url, channel, options }) {
    const fleet = [];
    fleets.set(name, fleet);
    const one = async () => {
      const client = create(url, options);
      const member = { client, heard: [], drops: 0 };
      fleet.push(member);
      client.on('connecting', (ctx) => { if (ctx.code !== 0) member.drops += 1; });
      const sub = client.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500 });
      sub.on('publication', (ctx) => member.heard.push(decode(ctx.data)));
      const ready = Promise.all([first(client, ['connected'], ['disconnected']), first(sub, ['subscribed'], ['unsubscribed'])]);
      sub.subscribe();
      client.connect();
      await ready;
    };
    // A few at a time, so that this process and not the node is what waits.
    const lanes = Array.from({ length: 25 }, async (_, lane) => {
      for (let i = lane; i < count; i += 25) await one();
    });
    await within(PATIENCE * 3, `fleet ${name} gathers`, Promise.all(lanes));
  },

  async heard({ name, least }) {
    const fleet = fleets.get(name);
    const deadline = Date.now() + PATIENCE * 2;
    while (fleet.some((member) => member.heard.length < least)) {
      if (Date.now() > deadline) {
        const short = fleet.filter((member) => member.heard.length < least);
        throw new Refusal(-1, `${short.length} of ${fleet.length} heard fewer than ${least}, one of them ${JSON.stringify(short[0].heard)}`);
      }
      await new Promise((yes) => setTimeout(yes, 20));
    }
    const groups = new Map();
    for (const member of fleet) {
      const key = JSON.stringify(member.heard);
      groups.set(key, (groups.get(key) ?? 0) + 1);
    }
    return [...groups].map(([key, clients]) => ({ sequence: JSON.parse(key), clients }));
  },

  // How often members of a fleet had to connect again.
  async drops({ name }) {
    return fleets.get(name).reduce((sum, member) => sum + member.drops, 0);
  },
};

// One at a time in the order given is not promised: each command runs as it comes.
createInterface({ input: process.stdin }).on('line', async (line) => {
  const command = JSON.parse(line);
  try {
    const ok = await commands[command.do](command);
    say({ re: command.id, ok: ok ?? null });
  } catch (error) {
    say({ re: command.id, error: { code: error.code ?? -1, message: error.message ?? String(error) } });
  }
}).on('close', () => process.exit(0));
