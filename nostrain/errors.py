"""The error families (design section 10). What is caught where follows from the family, never from the message.

=====================  ==============================================================================
family                 what the program does
=====================  ==============================================================================
RemoteProtocolError    they broke the protocol: drop the input, count it, never crash
LocalProtocolError     we broke it: crash, restart from the journal
IllegalTransition      a machine was given an input its state forbids: as LocalProtocolError
Unavailable            the other side is not there now: back off and try again
OutcomeUnknown         an effect may or may not have happened: reconcile before anything else
ConfigError            the operator's file is wrong: say key, value, reason, fix; exit 78
=====================  ==============================================================================
"""

from __future__ import annotations

from typing import Final

EX_CONFIG: Final = 78
"""`sysexits.h` code for a configuration error; systemd does not restart on it."""


class NostrainError(Exception):
    """Base of every error that this project raises on purpose."""


class RemoteProtocolError(NostrainError):
    """Someone else's bytes break the protocol. `what` names the thing, `reason` what is wrong with it, `whose` its author if known."""

    def __init__(self, what: str, reason: str, *, whose: str = "") -> None:
        self.what, self.reason, self.whose = what, reason, whose
        super().__init__(f"{what}{f' from {whose}' if whose else ''}: {reason}")


class LocalProtocolError(NostrainError):
    """This program broke the protocol. Not caught: the process ends and restarts from its journal."""


class IllegalTransition(LocalProtocolError):
    """A state machine was given an input that its state forbids. The state is unchanged."""


class Unavailable(NostrainError):
    """A peer, server or process cannot be reached or is overloaded now. Nothing happened; trying again is safe."""


class OutcomeUnknown(NostrainError):
    """An effect may or may not have taken place. Query its outcome; never repeat it on the strength of this error."""


class ConfigError(NostrainError):
    """The configuration cannot be used. Raised with all that the operator needs to mend it."""

    def __init__(self, key: str, value: object, reason: str, fix: str) -> None:
        self.key, self.value, self.reason, self.fix = key, value, reason, fix
        super().__init__(f"{key} = {value!r}: {reason}. {fix}")
