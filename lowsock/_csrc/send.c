/* SPDX-License-Identifier: MIT */
#include "internal.h"
#include "lowsock.h"
#include "control.h"

enum { STACK_CONTROL = 1104 /* 253 descriptors and credentials */ };

/* One buffer without control messages is what sendto(2) sends: the kernel does the same and copies no header in. */
int lowsock_send(int fd, char *data, size_t size)
{
    ssize_t n = send(fd, data, size, 0); /* the kernel takes less than 2 GiB at a time */

    return n < 0 ? negative_errno() : (int)n;
}

long long lowsock_sendto(int fd, char *data, size_t size, char *name, int name_size, int flags)
{
    ssize_t n = sendto(fd, data, size, flags, name_size > 0 ? (struct sockaddr *)name : NULL, (socklen_t)name_size);

    return n < 0 ? negative_errno() : n;
}

long long lowsock_sendto_family(int fd, int family, char *data, size_t size, char *name, int name_size, int flags)
{
    return lowsock_family(fd) == family ? lowsock_sendto(fd, data, size, name, name_size, flags) : -EINTR;
}

static long long send_iovecs(int fd, struct iovec *iov, size_t count, const char *payload, const int *table, size_t rows,
                             char *name, int name_size, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[STACK_CONTROL];
    } stack;
    struct msghdr header;
    size_t space = control_space(table, rows);
    char *control = space <= sizeof stack.bytes ? stack.bytes : malloc(space);
    ssize_t n;

    if (control == NULL)
        return -ENOMEM;
    if (rows > 0)
        fill_control(control, space, payload, table, rows);
    memset(&header, 0, sizeof header);
    header.msg_name = name_size > 0 ? name : NULL;
    header.msg_namelen = (socklen_t)name_size;
    header.msg_iov = iov;
    header.msg_iovlen = count;
    header.msg_control = space > 0 ? control : NULL;
    header.msg_controllen = space;
    n = sendmsg(fd, &header, flags);
    if (n < 0)
        n = negative_errno();
    if (control != stack.bytes)
        free(control);
    return n;
}

long long lowsock_sendmsg(int fd, char *data, size_t size, char *payload, int *table, size_t rows,
                          char *name, int name_size, int flags)
{
    struct iovec iov;

    iov.iov_base = data;
    iov.iov_len = size;
    return send_iovecs(fd, &iov, 1, payload, table, rows, name, name_size, flags);
}

long long lowsock_sendmsg_from(int fd, char **bases, size_t *sizes, size_t count, char *payload, int *table, size_t rows,
                               char *name, int name_size, int flags)
{
    struct iovec stack[STACK_IOVECS];
    struct iovec *iov = fill_iovecs(stack, bases, sizes, count);
    long long n;

    if (iov == NULL)
        return -ENOMEM;
    n = send_iovecs(fd, iov, count, payload, table, rows, name, name_size, flags);
    drop_iovecs(stack, iov);
    return n;
}

long long lowsock_send_gathered(int fd, char **bases, size_t *sizes, size_t count)
{
    return lowsock_sendmsg_from(fd, bases, sizes, count, NULL, NULL, 0, NULL, 0, 0);
}

long long lowsock_send_one(int fd, char *data, size_t size, int level, int type, char *payload, int length,
                           char *name, int name_size, int flags, int family)
{
    int table[3];

    if (family != AF_UNSPEC && lowsock_family(fd) != family)
        return -EINTR;
    table[0] = level;
    table[1] = type;
    table[2] = length;
    return lowsock_sendmsg(fd, data, size, payload, table, 1, name, name_size, flags);
}

int lowsock_send_fds(int fd, char *data, size_t size, int *fds, size_t count, int flags, int family)
{
    int length = (int)(count * sizeof *fds);

    return (int)lowsock_send_one(fd, data, size, SOL_SOCKET, SCM_RIGHTS, (char *)fds, length, NULL, 0, flags, family);
}
