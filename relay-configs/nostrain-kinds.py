#!/usr/bin/env python3
"""A strfry write policy: accept the kinds named on the command line and nothing else. Standard library only.

strfry hands over one JSON object a line and waits for the answer (docs/plugins.md there); its own checks of signature, size and time follow.
"""

import json
import sys


def main() -> None:
    allowed = {int(kind) for kind in sys.argv[1:]}
    for line in sys.stdin:
        event = json.loads(line)["event"]
        answer = {"id": event["id"], "action": "accept"}
        if event["kind"] not in allowed:
            answer |= {"action": "reject", "msg": f"blocked: kind {event['kind']} is not spoken here"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
