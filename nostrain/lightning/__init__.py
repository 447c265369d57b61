"""Core Lightning, asked over its Unix socket or with a rune: `client.ClnLightning` is the port. Needs lightningd 23.11 or later and a hold plugin.

The hold plugin is ours (`holdplugin`), BoltzExchange/hold, or any with the methods `injectholdinvoice`, `listholdinvoices`, `settleholdinvoice` and
`cancelholdinvoice`.
"""
