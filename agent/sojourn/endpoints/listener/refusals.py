"""Why a connection is closed before any call is answered on it, in few words: for metrics. The log has the sentence."""

from enum import StrEnum


class Refusal(StrEnum):
    """Each is the value of a label."""

    NOT_ADMITTED = "not_admitted"  # this user, or this certificate, may not use the door
    NO_ROOM = "no_room"  # all connections are taken, or too many handshakes are under way
    TOO_MANY = "too_many"  # of one user, SPIFFE ID or network
    TOO_OFTEN = "too_often"  # does one user, or one network, connect
    NOT_IDENTIFIED = "not_identified"  # who it is cannot be told: the process is gone, or has no credentials
    NO_TLS = "no_tls"  # the handshake failed
    MADE_ROOM = "made_room"  # for others, who have fewer
