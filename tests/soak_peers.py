"""What tests/soak needs beside curl, wrk and nginx: ports, a sink for uploads, and many idle connections."""

import re
import resource
import socket
import sys
import threading
import time


def ports(count):
    """Prints ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(count))]
    print(*(each.getsockname()[1] for each in sockets))


def wait(*addresses):
    """Returns when somebody listens on every port."""
    deadline = time.monotonic() + 20
    for port in addresses:
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"nobody listens on port {port}")
                time.sleep(0.02)


def sink(port):
    """Takes uploads and answers with nothing."""
    server = socket.create_server(("127.0.0.1", int(port)))
    while True:
        conn, _ = server.accept()
        threading.Thread(target=swallow, args=(conn,), daemon=True).start()


def swallow(conn):
    room = bytearray(1 << 20)
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            more = conn.recv(65536)
            if not more:
                return
            waiting += more
        head, waiting = waiting.split(b"\r\n\r\n", 1)
        left = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
        taken = min(left, len(waiting))
        waiting = waiting[taken:]
        left -= taken
        while left > 0:
            count = conn.recv_into(room, min(left, len(room)))
            if count == 0:
                return
            left -= count
        conn.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


REQUEST = b"GET / HTTP/1.1\r\nHost: idle.example\r\nUser-Agent: soak\r\nAccept: */*\r\n\r\n"


def connect(port, at):
    """A connection that has made one request. Each 127.0.0.x has ports for some thousands."""
    conn = socket.socket()
    conn.bind((f"127.0.0.{2 + at // 4000}", 0))
    conn.connect(("127.0.0.1", port))
    conn.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"Hello, world!"):
        part = conn.recv(4096)
        if not part:
            sys.exit(f"connection {at} was closed: {answer}")
        answer += part
    return conn


def resident(pid):
    """Resident memory in KiB: all of it, and this process's share."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        fields = dict(line.split()[:2] for line in rollup if line.startswith(("Rss:", "Pss:")))
    return int(fields["Rss:"]), int(fields["Pss:"])


def idle(port, pid, *steps):
    """Holds so many connections, and prints the memory of the process at each step and its slope in bytes."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    conns, levels = [], []
    for step in map(int, steps):
        while len(conns) < step:
            conns.append(connect(int(port), len(conns)))
        # Longer than the proxy takes to give idle memory back.
        time.sleep(2)
        levels.append((step, *resident(pid)))
        print("{} connections: {} KiB resident, {} KiB proportional".format(*levels[-1]))
    (few, before, _), (many, after, _) = levels[0], levels[-1]
    print("slope", (after - before) * 1024 // (many - few))


if __name__ == "__main__":
    commands = {"ports": ports, "await": wait, "sink": sink, "idle": idle}
    commands[sys.argv[1]](*sys.argv[2:])
