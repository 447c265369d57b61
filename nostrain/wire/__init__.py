"""Bytes ⇄ `protocol`: events, DLC TLVs, control messages. Parsers of network bytes end in `_untrusted` and raise only RemoteProtocolError."""
