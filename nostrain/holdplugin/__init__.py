"""Hold invoices inside Core Lightning: the plugin `nostrain-hold`, with the method names and fields of BoltzExchange/hold.

Two processes share one database: `nostrain-hold` has the methods, `nostrain-hold-standby` only the hook, behind it. lightningd hands every HTLC that
a dying plugin held to the next plugin of the hook's chain; each of the two restarts the other.

invoices   the rules: what becomes of an HTLC, pure
hook       `htlc_accepted`: the request read, the three possible replies written
bolt11     invoices for lightningd to sign
store      SQLite: an invoice and its HTLCs, changed in one transaction
keeper     HTLCs that wait for an answer in this process
methods    the RPC methods
partner    the other process: whether it lives, and starting it again
plugin     all of it on pyln-client

No trio, and nothing of nostrain but units and errors: lightningd starts it, and starts it again, within a fraction of a second.
"""
