"""A Lightning network of real programs on a chain of its own: bitcoind and lightningds from PATH, loopback and regtest only, worth nothing.

programs    what must be on PATH; free ports
bitcoind    one bitcoind: start, mine, pay, ask
lightningd  one lightningd: its options, start, stop, kill -9, what it logged as BROKEN
network     all of them: funds, channels from the first node to each other one, blocks, balances
process     the control socket and the command line (`python -m nostrain.devnet.regtest`)

The command line, the folder of sockets and the control methods are those of the simnet, as far as a real node can do what they say.
"""
