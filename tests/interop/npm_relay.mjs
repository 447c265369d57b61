// @nostr-relay/core over a repository in memory, at most 20 events an answer. Prints its URL; ends with its standard input.
import { EventRepository } from "@nostr-relay/common";
import { NostrRelay } from "@nostr-relay/core";
import { WebSocketServer } from "ws";

const CAP = 20;

class Memory extends EventRepository {
  events = new Map();
  isSearchSupported() { return false; }
  upsert(event) {
    const isDuplicate = this.events.has(event.id);
    this.events.set(event.id, event);
    return { isDuplicate };
  }
  find(filter) {
    const tags = Object.entries(filter).filter(([name]) => name.startsWith("#"));
    const wanted = (event) =>
      (!filter.ids || filter.ids.includes(event.id)) &&
      (!filter.authors || filter.authors.includes(event.pubkey)) &&
      (!filter.kinds || filter.kinds.includes(event.kind)) &&
      (filter.since === undefined || event.created_at >= filter.since) &&
      (filter.until === undefined || event.created_at <= filter.until) &&
      tags.every(([name, values]) => event.tags.some((tag) => tag[0] === name[1] && values.includes(tag[1])));
    const found = [...this.events.values()].filter(wanted).sort((a, b) => b.created_at - a.created_at);
    return found.slice(0, Math.min(CAP, filter.limit ?? CAP));
  }
  async destroy() {}
}

const relay = new NostrRelay(new Memory());
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("listening", () => console.log(`ws://127.0.0.1:${server.address().port}`));
server.on("connection", (socket) => {
  relay.handleConnection(socket);
  socket.on("message", (data) => relay.handleMessage(socket, JSON.parse(data.toString())).catch((error) => socket.close(1011, String(error))));
  socket.on("close", () => relay.handleDisconnect(socket));
});
process.stdin.on("end", () => process.exit(0)).resume();
