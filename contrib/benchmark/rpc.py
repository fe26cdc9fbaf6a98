"""containerd's API without any library: as much of HTTP/2 and protobuf as a few of its calls need.

It is here because `ctr` makes an image in 10 to 25 ms and this in 0.3, and because the bare list of images, without a
process around it, is what ctrfs is measured against.
"""

import socket
import struct

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_WINDOW = 2**31 - 1
IN_FLIGHT = 32


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """One field of a message: a number, a text, bytes, or a dictionary of texts."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, dict):
        return b"".join(field(number, field(1, key) + field(2, text)) for key, text in value.items())
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def text(value):
    """A string of HPACK, as it is."""
    value = value.encode()
    if len(value) < 127:
        return bytes([len(value)]) + value
    return b"\x7f" + varint(len(value) - 127) + value


class Rpc:
    """One connection."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(address)
        self.stream = -1
        self.window = 65535  # what we may send
        self.answers = {}  # by stream, the messages so far
        self.ended = set()
        self.rest = bytearray()
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + self.frame(SETTINGS, 0, 0, struct.pack(">HIHI", 1, 0, 4, MAX_WINDOW))
            + self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65535))
        )

    def close(self):
        self.socket.close()

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def begin(self, method, message, namespace="default"):
        """Sends a call; the number of its stream."""
        data = b"\0" + struct.pack(">I", len(message)) + message
        while self.window < len(data):
            self.receive()
        self.window -= len(data)
        self.stream += 2
        headers = {
            ":method": "POST", ":scheme": "http", ":path": "/containerd.services." + method, ":authority": "localhost",
            "content-type": "application/grpc", "te": "trailers", "containerd-namespace": namespace,
        }
        block = b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
        parts = [self.frame(HEADERS, END_HEADERS, self.stream, block)]
        # The last piece ends the stream: a server that has it all may answer, and resets a stream that still goes on.
        pieces = [data[at : at + 16384] for at in range(0, len(data), 16384)]
        parts += [self.frame(DATA, 0, self.stream, piece) for piece in pieces[:-1]]
        parts.append(self.frame(DATA, END_STREAM, self.stream, pieces[-1]))
        self.answers[self.stream] = bytearray()
        self.socket.sendall(b"".join(parts))
        return self.stream

    def take(self, size):
        while len(self.rest) < size:
            more = self.socket.recv(1 << 20)
            if not more:
                raise ConnectionError("containerd closed the connection")
            self.rest += more
        taken = bytes(self.rest[:size])
        del self.rest[:size]
        return taken

    def receive(self):
        """Takes one frame."""
        head = self.take(9)
        size, (kind, flags, stream) = int.from_bytes(head[:3], "big"), struct.unpack(">BBI", head[3:])
        payload = self.take(size)
        if kind == DATA:
            self.answers[stream] += payload
        elif kind == WINDOW_UPDATE and stream == 0:
            self.window += struct.unpack(">I", payload)[0]
        elif kind == PING and not flags & ACK:
            self.socket.sendall(self.frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self.socket.sendall(self.frame(SETTINGS, ACK, 0, b""))
        elif kind in (RESET, GOAWAY):
            raise ConnectionError(f"containerd ended the call: {payload!r}")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def end(self, stream):
        """What a call answered. An answer without a message is an error: gRPC puts it into the trailers."""
        self.ended.remove(stream)
        answer = self.answers.pop(stream)
        if len(answer) < 5:
            raise RuntimeError(f"call {stream} failed")
        return answer

    def call(self, method, message=b"", namespace="default"):
        stream = self.begin(method, message, namespace)
        while stream not in self.ended:
            self.receive()
        return self.end(stream)

    def many(self, method, messages, namespace="default"):
        """The same call with many messages, some of them at a time."""
        for message in messages:
            self.begin(method, message, namespace)
            self.drain(IN_FLIGHT)
        self.drain(0)

    def drain(self, left):
        """Waits until no more than that many calls are under way."""
        while len(self.answers) > left:
            while not self.ended:
                self.receive()
            self.end(min(self.ended))


KEPT = {"containerd.io/gc.root": "bench"}


def blob(digest, data):
    """A whole blob in one message of Content.Write."""
    return (
        field(1, 2) + field(2, "bench-" + digest) + field(3, len(data)) + field(4, digest) + field(6, data) + field(7, KEPT)
    )


def image(name, descriptor):
    target = field(1, descriptor["mediaType"]) + field(2, descriptor["digest"]) + field(3, descriptor["size"])
    return field(1, field(1, name) + field(3, target))


def delete_image(name):
    return field(1, name)


def label_image(name, labels):
    """Gives an image these labels and no others."""
    return field(1, field(1, name) + field(2, labels)) + field(2, field(1, "labels"))


def container(name, image_name, spec):
    spec = field(1, "types.containerd.io/opencontainers/runtime-spec/1/Spec") + field(2, spec)
    runtime = field(1, "io.containerd.runc.v2")
    return field(1, field(1, name) + field(3, image_name) + field(4, runtime) + field(5, spec))


def read(digest):
    return field(1, digest)
