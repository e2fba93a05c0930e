"""The world's name server for tests: answers every A query over UDP and TCP with 203.0.113.7, other types with nothing.

    dns_server.py ADDRESS LOG      writes the address of each asker to LOG
"""

import socket
import struct
import sys
import threading


def answer(query):
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    is_address = question[-4:-2] == b"\0\1"
    header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if is_address else 0, 0, 0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.7")
    return header + question + (record if is_address else b"")


def serve_streams(listener):
    while True:
        stream, _ = listener.accept()
        with stream:
            (length,) = struct.unpack(">H", stream.recv(2))
            reply = answer(stream.recv(length))
            stream.sendall(struct.pack(">H", len(reply)) + reply)


def main():
    address, log = sys.argv[1], open(sys.argv[2], "w", encoding="ascii", buffering=1)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 53))
    threading.Thread(target=serve_streams, args=(socket.create_server((address, 53)),), daemon=True).start()
    while True:
        query, asker = datagrams.recvfrom(4096)
        log.write(asker[0] + "\n")
        datagrams.sendto(answer(query), asker)


main()
