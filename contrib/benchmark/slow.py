"""A containerd that takes its time: a socket before it that passes everything on, and what it answers late."""

import contextlib
import multiprocessing
import queue
import socket
import threading
import time

PIECE = 1 << 16


def passing(source, target, delay):
    """Passes bytes on, each as late as was said when it came: what follows is not held back by more than that."""
    waiting = queue.SimpleQueue()

    def late():
        while (piece := waiting.get())[1]:
            time.sleep(max(piece[0] - time.monotonic(), 0))
            try:
                target.sendall(piece[1])
            except OSError:
                return
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=late, daemon=True).start()
    while True:
        try:
            data = source.recv(PIECE)
        except OSError:
            data = b""
        waiting.put((time.monotonic() + delay(), data))
        if not data:
            return


def serve(listener, address, delay):
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(address)
        for words in ((client, server, lambda: 0), (server, client, lambda: delay.value)):
            threading.Thread(target=passing, args=words, daemon=True).start()


@contextlib.contextmanager
def before(containerd, path):
    """The socket and how late it answers, in seconds: set its `value`. A process of its own, not to share our interpreter."""
    delay = multiprocessing.Value("d", 0.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        server = multiprocessing.Process(target=serve, args=(listener, containerd.address, delay), daemon=True)
        server.start()
    try:
        yield str(path), delay
    finally:
        server.terminate()
        server.join()
