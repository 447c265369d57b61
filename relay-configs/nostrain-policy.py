#!/usr/bin/env python3
"""A strfry write policy for nostrain traffic: kinds, sizes, rates, expired events, proof of work for strangers. Standard library only.

    nostrain-policy.py --kinds 1059,8650,… [--max-bytes N] [--per-minute N] [--pow BITS --known FILE]

strfry hands over one JSON object a line and waits for the answer (docs/plugins.md there); signature, id and time are its own business.
"""

import argparse
import json
import sys
from pathlib import Path

GIFT_WRAP = 1059
LOCAL = ("Import", "Stream", "Sync")
REMEMBERED = 65_536


def bits(digest):
    """Leading zero bits of a hex digest (NIP-13)."""
    return 4 * len(digest) - int(digest, 16).bit_length()


class Rates:
    """A bucket of `per_minute` events for each key, refilled evenly; the least recent of REMEMBERED keys is forgotten."""

    def __init__(self, per_minute):
        self.per_minute, self.buckets = per_minute, {}

    def admits(self, key, now):
        left, then = self.buckets.pop(key, (self.per_minute, now))
        left = min(self.per_minute, left + max(0, now - then) * self.per_minute / 60)
        admitted = left >= 1
        self.buckets[key] = (left - admitted, now)
        if len(self.buckets) > REMEMBERED:
            del self.buckets[next(iter(self.buckets))]
        return admitted


class Known:
    """Public keys of a file, 64 hex digits a line, read again when it changes; whoever is not in it is a stranger."""

    def __init__(self, path):
        self.path, self.changed, self.keys = path, None, frozenset()

    def __contains__(self, pubkey):
        changed = self.path.stat().st_mtime_ns
        if changed != self.changed:
            self.changed, self.keys = changed, frozenset(self.path.read_text().split())
        return pubkey in self.keys


class Policy:
    """What is refused, and why; the prefixes are NIP-01's."""

    def __init__(self, options):
        self.kinds, self.max_bytes, self.pow = options.kinds, options.max_bytes, options.pow
        self.rates = Rates(options.per_minute)
        self.known = Known(options.known) if options.known else ()

    def refusal(self, request):
        event, now = request["event"], request["receivedAt"]
        wrap, local = event["kind"] == GIFT_WRAP, request["sourceType"] in LOCAL
        size = len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode())
        if event["kind"] not in self.kinds:
            return f"blocked: kind {event['kind']} is not spoken here"
        if size > self.max_bytes:
            return f"invalid: {size} bytes, at most {self.max_bytes} are taken"
        if any(expires <= now for expires in expirations(event)):
            return "invalid: the event has expired"
        # A gift wrap is signed by a key made for it: only its sender's address can be counted, and nobody mines for it.
        if not local and not wrap and self.pow and event["pubkey"] not in self.known and worked(event) < self.pow:
            return f"pow: {self.pow} bits are asked of keys that are not known here"
        if not local and not self.rates.admits(request["sourceInfo"] if wrap else event["pubkey"], now):
            return f"rate-limited: more than {self.rates.per_minute} events a minute"
        return None


def expirations(event):
    """NIP-40; what is no time does not expire."""
    return [int(tag[1]) for tag in event["tags"] if len(tag) > 1 and tag[0] == "expiration" and tag[1].isdecimal()]


def worked(event):
    """The bits that the author committed to (NIP-13) and has; luck does not count."""
    targets = [int(tag[2]) for tag in event["tags"] if len(tag) > 2 and tag[0] == "nonce" and tag[2].isdecimal()]
    return min(bits(event["id"]), max(targets, default=0))


def main():
    parser = argparse.ArgumentParser(description="A strfry write policy for nostrain traffic.")
    parser.add_argument(
        "--kinds", required=True, type=lambda text: {int(kind) for kind in text.split(",")}, help="the kinds that are taken"
    )
    parser.add_argument("--max-bytes", type=int, default=65_536, help="the largest event")
    parser.add_argument("--per-minute", type=int, default=600, help="events of one key; of gift wraps, from one address")
    parser.add_argument("--pow", type=int, default=0, help="bits of proof of work asked of strangers")
    parser.add_argument("--known", type=Path, help="file of public keys that are no strangers")
    policy = Policy(parser.parse_args())
    for line in sys.stdin:
        request = json.loads(line)
        reason = policy.refusal(request)
        answer = {"id": request["event"]["id"], "action": "accept" if reason is None else "reject"}
        print(json.dumps(answer | ({} if reason is None else {"msg": reason})), flush=True)


if __name__ == "__main__":
    main()
