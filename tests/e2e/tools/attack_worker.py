"""Sends forged VXLAN packets, or prints what arrives. Started in a network namespace by attack.py.

    attack_worker.py send [UID]        a JSON list of packets on standard input; with UID as that user, who has no capability
    attack_worker.py listen PORT       a line for each token that a datagram brings

A packet: {"token", "vni", "mac", "address" (of the inner packet), "to", "port", "link"}; and for one that is written as a
frame, which takes NET_RAW: {"source", "via" (MAC)}. Standard output: a JSON list, for each packet empty or the error.
"""

import ipaddress
import json
import os
import re
import socket
import struct
import sys

TOKEN = re.compile(rb"<attack:[^>]*>")
INNER_PORT = 9999


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source, destination, ports, payload):
    """An IP packet of either family."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", *ports, length, 0)
    pseudo = source.packed + destination.packed + struct.pack("!IxxxB", length, 17)
    if source.version == 4:
        pseudo = source.packed + destination.packed + struct.pack("!BBH", 0, 17, length)
    udp = struct.pack("!HHHH", *ports, length, checksum(pseudo + udp + payload) or 0xFFFF) + payload
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, 17, 64) + source.packed + destination.packed + udp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + source.packed + destination.packed
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def vxlan(packet):
    """What a tunnel's packet carries: a frame for a container."""
    inner = datagram(str(ipaddress.ip_network(packet["address"] + "/24", strict=False)[250]), packet["address"],
                     (40000, INNER_PORT), packet["token"].encode())
    frame = mac(packet["mac"]) + mac("02:00:00:00:66:66") + b"\x08\x00" + inner
    return struct.pack("!II", 0x08000000, packet["vni"] << 8) + frame


def send_frame(packet):
    source, destination = packet["source"], packet["to"]
    kind = b"\x86\xdd" if ":" in destination else b"\x08\x00"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((packet["link"], 0))
        raw.send(mac(packet["via"]) + raw.getsockname()[4] + kind +
                 datagram(source, destination, (50000, packet["port"]), vxlan(packet)))


def send_plainly(packet):
    destination = packet["to"]
    version = ipaddress.ip_address(destination).version
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if destination.startswith(("224.", "255.", "ff")) or destination.endswith(".255"):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, packet["link"].encode())  # no route need lead there
        address = (destination, packet["port"])
        if version == 6:
            scope = socket.if_nametoindex(packet["link"]) if destination.startswith("ff") else 0
            address = (destination, packet["port"], 0, scope)
        udp.sendto(vxlan(packet), address)


def send(packets):
    problems = []
    for packet in packets:
        try:
            (send_frame if "source" in packet else send_plainly)(packet)
            problems.append("")
        except OSError as error:
            problems.append(str(error))
    print(json.dumps(problems))


def listen(port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.bind(("::", port))
        print("ready", flush=True)
        while True:
            for token in TOKEN.findall(udp.recv(4096)):
                print(token.decode(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(int(sys.argv[2]))
    packets = json.load(sys.stdin)
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    send(packets)
