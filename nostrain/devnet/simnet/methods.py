"""What answers on one node: lightningd's and the hold plugin's methods, a class for each group of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nostrain.devnet.simnet.chain import Chain
from nostrain.devnet.simnet.nodes import Network, Node
from nostrain.devnet.simnet.rpc import Method


class NodeMethods(ABC):
    """Methods of `node`, which is one of `network`'s. A method takes its parameters' struct, and returns JSON or raises RpcFailure."""

    def __init__(self, network: Network, node: Node) -> None:
        self.network, self.node = network, node

    @property
    def chain(self) -> Chain:
        """The network's."""
        return self.network.chain

    @abstractmethod
    def table(self) -> dict[str, Method]:
        """The methods by name."""
