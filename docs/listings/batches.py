# SPDX-License-Identifier: MIT
"""Datagrams in batches: many by one system call, in each of the two forms, and what happens where there is no room."""

import socket

from lowsock import RecvBatch, SendBatch, recvmmsg, sendmmsg


def send_all(sock, messages):
    """Sends every message, by as few system calls as it takes; returns how many calls were needed."""
    calls = 0
    while messages:
        messages = messages[sendmmsg(sock, messages) :]
        calls += 1
    return calls


def ask(client, server):
    """Sends numbers to the server, and reads what it sent back."""
    questions = [([b"number ", b"%d" % number], (), server) for number in range(100)]
    calls = send_all(client, questions)
    print(f"sent {len(questions)} datagrams by {calls} call of sendmmsg")


def serve(sock):
    """Answers all that has come, each to where it came from."""
    answers = [([data.upper()], (), address) for data, ancdata, flags, address in recvmmsg(sock, 128, 2048)]
    sendmmsg(sock, answers)
    print(f"answered {len(answers)} datagrams")


def relay(ours, theirs, out, into):
    """Takes one batch from ``ours`` and sends it on to ``theirs``; the memory is the same each time."""
    into.recv(ours)
    for view, _ in into:
        out.append(view)
    while len(out):
        out.send(theirs)


def fill(sock, batch):
    """Sends until there is no room; what has not gone stays in the batch."""
    sent = 0
    try:
        while len(batch):
            sent += batch.send(sock)
    except BlockingIOError:
        print(f"{sent > 0} that some went, {len(batch) > 0} that some are left, {sent + len(batch)} in all")


def main():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for sock in (server, client):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(1)
        ask(client, server.getsockname())
        serve(server)
        replies = recvmmsg(client, 100, 2048, wait_all=True)
        print(f"the last of {len(replies)} replies: {replies[-1][0]}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, SendBatch(1000, 2048) as out, RecvBatch(100, 2048) as into:
        sendmmsg(theirs, [([b"over"],), ([b"and"],), ([b"out"],)])
        relay(ours, ours, out, into)
        print("relayed:", [data for data, ancdata, flags, address in recvmmsg(theirs, 10, 100)])
        ours.setblocking(False)
        out.extend([b"x" * 2000] * 1000)
        fill(ours, out)


if __name__ == "__main__":
    main()
