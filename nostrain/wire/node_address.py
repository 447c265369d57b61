"""A Lightning node as an enrolment names it: its id, and where it is."""

from __future__ import annotations

import re
from typing import Final

from coincurve import PublicKey

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import NodeAddress
from nostrain.wire.host_port import address_problem

_NODE_ID: Final = re.compile(r"0[23][0-9a-f]{64}")


def check_node_untrusted(node: NodeAddress) -> None:
    """Raises RemoteProtocolError unless it is the id of a node, and an address."""
    if not _NODE_ID.fullmatch(node.id):
        raise RemoteProtocolError("node", "its id is not a compressed key")
    try:
        PublicKey(bytes.fromhex(node.id))
    except ValueError:
        raise RemoteProtocolError("node", "its id is not a point of the curve") from None
    problem = address_problem(node.address)
    if problem is not None:
        raise RemoteProtocolError("node", f"its address is {problem}")
