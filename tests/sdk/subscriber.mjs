// Subscribers by the official JavaScript SDK, for the checker: each thing the application is told is one JSON line, an
// entry of ../src/checker/history.rs. Ends with its stdin.
//
// Usage: node subscriber.mjs json|protobuf '{"seats":[{"who":"js-0","url":"ws://..."}],"channels":["news"]}'

import WebSocket from 'ws';
import * as overJson from 'centrifuge';
import * as overProtobuf from 'centrifuge/build/protobuf';

const protobuf = process.argv[2] === 'protobuf';
const { seats, channels } = JSON.parse(process.argv[3]);
const { Centrifuge } = protobuf ? overProtobuf : overJson;

const decode = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
const note = (entry) => process.stdout.write(JSON.stringify(entry) + '\n');

for (const { who, url } of seats) {
  const client = new Centrifuge(url, {
    websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 500, maxServerPingDelay: 4000, timeout: 4000,
  });
  for (const channel of channels) {
    const sub = client.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500 });
    // What the SDK will ask for: the last position that the application saw.
    let since = null;
    let live = false;
    sub.on('subscribing', ({ code }) => {
      if (live) note({ what: 'unsubscribed', who, channel, code });
      live = false;
      note({ what: 'asked', who, channel, since });
    });
    sub.on('subscribed', (ctx) => {
      live = true;
      const position = ctx.streamPosition ? { offset: Number(ctx.streamPosition.offset), epoch: ctx.streamPosition.epoch } : null;
      since = ctx.recoverable ? { ...position } : null;
      note({ what: 'subscribed', who, channel, position, was_recovering: ctx.wasRecovering, recovered: ctx.recovered, publications: null });
    });
    sub.on('publication', (ctx) => {
      const offset = Number(ctx.offset ?? 0);
      if (since && offset > 0) since.offset = offset;
      note({ what: 'delivered', who, channel, id: decode(ctx.data).id, offset });
    });
    sub.on('unsubscribed', ({ code }) => {
      live = false;
      note({ what: 'unsubscribed', who, channel, code });
    });
    sub.subscribe();
  }
  client.on('disconnected', ({ code, reason }) => note({ what: 'disconnected', who, why: `${code}: ${reason}` }));
  client.connect();
}

process.stdin.resume().on('end', () => process.exit(0));
