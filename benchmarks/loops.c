/* SPDX-License-Identifier: MIT */
/* The C side of the benchmarks: what the same system calls cost without an interpreter. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 1 << 18, CONTROL = 8192, VECTORS = 64, SOURCES = 100000 };

static char sent[ROOM];

static struct msghdr header(struct iovec *iov, size_t count)
{
    struct msghdr message;

    memset(&message, 0, sizeof message);
    message.msg_iov = iov;
    message.msg_iovlen = count;
    return message;
}

/* One control message, in a buffer that has room for just that. */
static struct cmsghdr *attach(struct msghdr *message, void *control, int level, int type, const void *payload, size_t size)
{
    struct cmsghdr *only = control;

    memset(control, 0, CMSG_SPACE(size));
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(size);
    only->cmsg_level = level;
    only->cmsg_type = type;
    only->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(only), payload, size);
    return only;
}

static int send_one(int fd, struct iovec *iov, size_t count, char *name, int name_size)
{
    struct msghdr message = header(iov, count);

    message.msg_name = name;
    message.msg_namelen = (socklen_t)name_size;
    return sendmsg(fd, &message, 0) < 0 ? -errno : 0;
}

static ssize_t receive_one(int fd, struct iovec *iov, size_t count, size_t control_size)
{
    static char control[CONTROL];
    struct sockaddr_storage name;
    struct msghdr message = header(iov, count);
    ssize_t n;

    message.msg_name = &name;
    message.msg_namelen = sizeof name;
    message.msg_control = control_size ? control : NULL;
    message.msg_controllen = control_size;
    n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    return n < 0 ? -errno : n;
}

static ssize_t receive_plain(int fd, size_t room, size_t control)
{
    static char data[ROOM];
    struct iovec iov = {data, room};

    return receive_one(fd, &iov, 1, control);
}

static int there(int from, int to, struct iovec *iov, size_t count, size_t room, size_t control)
{
    int error = send_one(from, iov, count, NULL, 0);
    ssize_t n = error ? error : receive_plain(to, room, control);

    return n < 0 ? (int)n : 0;
}

int loop_plain(int from, int to, size_t size, size_t room, size_t control, int n)
{
    struct iovec iov = {sent, size};
    int error = 0;

    while (n-- > 0 && error == 0) {
        error = there(from, to, &iov, 1, room, control);
        if (error == 0)
            error = there(to, from, &iov, 1, room, control);
    }
    return error;
}

int loop_one_way(int from, int to, size_t size, size_t room, size_t control, int n)
{
    struct iovec iov = {sent, size};
    int error = 0;

    while (n-- > 0 && error == 0)
        error = there(from, to, &iov, 1, room, control);
    return error;
}

int loop_address(int from, int to, size_t size, size_t room, char *name, int name_size, int n)
{
    struct iovec iov = {sent, size};
    int error = 0;

    while (n-- > 0 && error == 0) {
        error = send_one(from, &iov, 1, name, name_size);
        if (error == 0 && receive_plain(to, room, 0) < 0)
            error = -EIO;
    }
    return error;
}

static void fill(struct iovec *iov, char *base, size_t count, size_t size)
{
    size_t i;

    for (i = 0; i < count; i++) {
        iov[i].iov_base = base + i * size;
        iov[i].iov_len = size;
    }
}

int loop_gather(int from, int to, size_t count, size_t size, size_t room, int n)
{
    struct iovec iov[VECTORS];
    int error = 0;

    fill(iov, sent, count, size);
    while (n-- > 0 && error == 0)
        error = there(from, to, iov, count, room, 0);
    return error;
}

int loop_scatter(int from, int to, size_t head, size_t size, size_t room, int n)
{
    static char data[ROOM];
    struct iovec out = {sent, size};
    struct iovec in[2] = {{data, head}, {data + head, room}};
    int error = 0;

    while (n-- > 0 && error == 0) {
        error = send_one(from, &out, 1, NULL, 0);
        if (error == 0 && receive_one(to, in, 2, 0) < 0)
            error = -EIO;
    }
    return error;
}

int loop_vectors(int from, int to, size_t count, size_t size, size_t into, int n)
{
    static char data[ROOM];
    struct iovec out[VECTORS];
    struct iovec in[VECTORS];
    int error = 0;

    fill(out, sent, count, size);
    fill(in, data, into, count * size / into);
    while (n-- > 0 && error == 0) {
        error = send_one(from, out, count, NULL, 0);
        if (error == 0 && receive_one(to, in, into, 0) != (ssize_t)(count * size))
            error = -EIO;
    }
    return error;
}

int loop_receive(int to, size_t room, size_t control, int n)
{
    ssize_t got = 0;

    while (n-- > 0 && got >= 0)
        got = receive_plain(to, room, control);
    return got < 0 ? (int)got : 0;
}

int loop_stream(int from, int to, size_t size, int count, int n)
{
    struct iovec iov = {sent, size};
    int error = 0;
    int i;

    while (n-- > 0 && error == 0) {
        for (i = 0; i < count && error == 0; i++)
            error = send_one(from, &iov, 1, NULL, 0);
        for (i = 0; i < count && error == 0; i++)
            error = receive_plain(to, size, 0) < 0 ? -EIO : 0;
    }
    return error;
}

static int pass(int from, int to, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    struct msghdr message = header(&iov, 1);
    struct cmsghdr *only = attach(&message, control.bytes, SOL_SOCKET, SCM_RIGHTS, &fd, sizeof fd);

    if (sendmsg(from, &message, 0) < 0)
        return -errno;
    message.msg_controllen = sizeof control.bytes;
    if (recvmsg(to, &message, MSG_CMSG_CLOEXEC) < 0)
        return -errno;
    memcpy(&fd, CMSG_DATA(only), sizeof fd);
    return fd;
}

int loop_descriptor(int a, int b, int fd, int n)
{
    int error = 0;

    while (n-- > 0 && error == 0) {
        int copy = pass(a, b, fd);
        int back = copy < 0 ? copy : pass(b, a, copy);

        error = back < 0 ? back : 0;
        if (copy >= 0)
            close(copy);
        if (back >= 0)
            close(back);
    }
    return error;
}

static int send_from_source(int from, size_t size, int source, char *name, int name_size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } control;
    struct iovec iov = {sent, size};
    struct msghdr message = header(&iov, 1);
    struct in_pktinfo info;

    memset(&info, 0, sizeof info);
    info.ipi_spec_dst.s_addr = htonl(0x7f010000u + (unsigned)source);
    message.msg_name = name;
    message.msg_namelen = (socklen_t)name_size;
    attach(&message, control.bytes, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    return sendmsg(from, &message, 0) < 0 ? -errno : 0;
}

int loop_sources(int from, int to, size_t size, size_t room, char *name, int name_size, int n)
{
    int error = 0;

    while (n-- > 0 && error == 0) {
        error = send_from_source(from, size, n % SOURCES, name, name_size);
        if (error == 0 && receive_plain(to, room, 0) < 0)
            error = -EIO;
    }
    return error;
}
