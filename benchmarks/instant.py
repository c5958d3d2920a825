"""A server that answers each request with "exited, 0" as soon as it is complete: what a client costs by itself.

usage: instant.py SOCKET        (docs/protocol.md, section 2; prints a line when it listens)
"""

from __future__ import annotations

import socket
import struct
import sys

# EXIT: how 0 (exited), status 0.
_ANSWER = struct.pack("<IB", 2, 20) + b"\0\0"


def main() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                got = connection.recv(1 << 18)
                while len(got) < 5 or len(got) < 5 + struct.unpack_from("<I", got)[0]:
                    more = connection.recv(1 << 18)
                    if not more:
                        break
                    got += more
                connection.sendall(_ANSWER)


if __name__ == "__main__":
    main()
