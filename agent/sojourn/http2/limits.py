"""Every limit of a connection and its streams, each with its reason. Units stand in the names.

What is limited over many connections, such as the bytes that are held of one caller's requests, is for the host to
say (`host.py`). What the standard gives, such as the size of a frame, is in `frames.py`.
"""

FIRST_BYTES_SECONDS = 5.0  # a silent connection is closed
HEADER_BLOCK_SECONDS = 5.0  # from its first frame to its last
STREAMS_PER_CONNECTION = 100
HEADER_BLOCK_FRAMES = 8  # a caller that sends more of them sends nothing else
HEADER_BLOCK_MAX_BYTES = 64 * 1024  # packed or unpacked; over METADATA_MAX_BYTES the call is refused, over that all
METADATA_MAX_BYTES = 16 * 1024  # of one call's head, as RFC 9113 (6.5.2) counts it
FIELD_HELD_BYTES = 128  # what a field of a head takes in memory beside its name and value
HEADS_KEPT = 32  # of calls on a connection that begin the same again and again
HEADS_KEPT_BYTES = 64
# How much of a call's request a peer may send before it is read. A whole connection has four times that.
REQUEST_WINDOW_BYTES = 256 * 1024
RESET_STREAMS_KEPT = 100  # of which more may come although they are over
STATUS_TEXT_MAX_BYTES = 4_096  # of an error's text: it goes into a single frame, with up to three bytes for one
