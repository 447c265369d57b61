"""A Lightning test network in one process: nodes that speak Core Lightning's JSON-RPC, worth nothing and on no chain.

channels    what two nodes owe each other: balances, reserve, HTLC slots, HTLCs
nodes       one node's key, invoices, hold invoices and payments; the network of all of them and its block clock
receiving   what a node does with an HTLC that ends at it: invoices, hold invoices (as the plugin BoltzExchange/hold treats them)
sending     payments: sendpay's and xpay's rules for what may be sent again
info        Core Lightning's methods about the node and its channels; invoices, payments: the others; params: what they take
offers      Core Lightning's methods about BOLT 12 offers
hold        the plugin's methods
control     what a test may do: mine, make a node misbehave, ask for the balances
rpc         JSON-RPC 2.0 on a Unix socket, as lightningd frames it
process     the sockets of all nodes, the clock, the command line (`python -m nostrain.devnet.simnet`)

Left out, and different from lightningd: there are no fees, neither for forwarding nor for commitment transactions; a node answers an invoice
request without onion messages, and the path in its BOLT 12 invoices is not encrypted; a settled or failed HTLC is
resolved at once on every channel of its path, whoever is up; state is in memory, and a crashed node comes back with what it had.
"""
