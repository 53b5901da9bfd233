/* SPDX-License-Identifier: MIT */
/* The system calls that a harness does not expect. Harnesses define those that they do. */
#include "fuzz.h"

#define UNEXPECTED __attribute__((weak, noreturn))

static _Noreturn void unexpected(const char *name, int fd)
{
    fprintf(stderr, "not expected: %s(%d)\n", name, fd);
    abort();
}

UNEXPECTED ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
    (void)header;
    (void)flags;
    unexpected("recvmsg", fd);
}

UNEXPECTED ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
    (void)header;
    (void)flags;
    unexpected("sendmsg", fd);
}

UNEXPECTED int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    (void)messages;
    (void)count;
    (void)flags;
    (void)timeout;
    unexpected("recvmmsg", fd);
}

UNEXPECTED int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    (void)messages;
    (void)count;
    (void)flags;
    unexpected("sendmmsg", fd);
}

UNEXPECTED int close(int fd) { unexpected("close", fd); }

UNEXPECTED int fcntl(int fd, int command, ...)
{
    (void)command;
    unexpected("fcntl", fd);
}
