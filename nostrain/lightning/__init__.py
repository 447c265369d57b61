"""Core Lightning, asked over its Unix socket: `client.ClnLightning` is the port. Needs lightningd 23.11 or later and a hold plugin.

The hold plugin is BoltzExchange/hold, or any with its methods `injectholdinvoice`, `listholdinvoices`, `settleholdinvoice` and
`cancelholdinvoice`.
"""
