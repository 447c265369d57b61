// nostr-tools as a client: reads one author's events from a relay, says one of its own. Arguments: relay URL, author, how many to read.
// Prints {"read": [event, …], "verified": n, "said": event}.
import { finalizeEvent, generateSecretKey, verifyEvent } from "nostr-tools/pure";
import { Relay, useWebSocketImplementation } from "nostr-tools/relay";
import WebSocket from "ws";

useWebSocketImplementation(WebSocket);
const [url, author, count] = process.argv.slice(1);
const relay = await Relay.connect(url);
const read = await new Promise((resolve) => {
  const found = [];
  const subscription = relay.subscribe([{ authors: [author], limit: Number(count) }], {
    onevent: (event) => found.push(event),
    oneose: () => { subscription.close(); resolve(found); },
  });
});
const draft = { kind: 8650, created_at: Math.floor(Date.now() / 1000), tags: [["t", "nostrain"]], content: 'by nostr-tools: é "\\ \n 🦆' };
const said = finalizeEvent(draft, generateSecretKey());
await relay.publish(said);
relay.close();
const plain = ({ id, pubkey, created_at, kind, tags, content, sig }) => ({ id, pubkey, created_at, kind, tags, content, sig });
const verified = read.filter((event) => verifyEvent(plain(event))).length;
console.log(JSON.stringify({ read: read.map(plain), verified, said: plain(said) }));
process.exit(0);
