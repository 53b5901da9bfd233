/* SPDX-License-Identifier: MIT */
/* Questions to the platform: sizes, options, names, the out-of-band mark. */
#include "internal.h"
#include "lowsock.h"

long long lowsock_cmsg_len(size_t length) { return (long long)CMSG_LEN(length); }

long long lowsock_cmsg_space(size_t length) { return (long long)CMSG_SPACE(length); }

int lowsock_sockatmark(int fd)
{
    int n = sockatmark(fd);

    return n < 0 ? negative_errno() : n;
}

int lowsock_option(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof value;

    return getsockopt(fd, level, option, &value, &size) < 0 ? negative_errno() : value;
}

int lowsock_set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? negative_errno() : 0;
}

int lowsock_write_option(int fd, int level, int option, char *value, int size)
{
    return setsockopt(fd, level, option, value, (socklen_t)size) < 0 ? negative_errno() : 0;
}

int lowsock_read_option(int fd, int level, int option, char *value, int size)
{
    socklen_t length = (socklen_t)size;

    return getsockopt(fd, level, option, value, &length) < 0 ? negative_errno() : (int)length;
}

int lowsock_family(int fd)
{
#ifdef SO_DOMAIN
    return lowsock_option(fd, SOL_SOCKET, SO_DOMAIN);
#else
    struct sockaddr_storage name;
    socklen_t size = sizeof name;

    memset(&name, 0, sizeof name);
    return getsockname(fd, (struct sockaddr *)&name, &size) < 0 ? negative_errno() : name.ss_family;
#endif
}

#if HAVE_MMSG
int lowsock_probe_batches(int from, int to)
{
    char bytes[2] = {'1', '2'};
    struct iovec iov[2];
    struct mmsghdr batch[2];
    int i;
    int n;

    memset(batch, 0, sizeof batch);
    for (i = 0; i < 2; i++) {
        iov[i].iov_base = bytes + i;
        iov[i].iov_len = 1;
        batch[i].msg_hdr.msg_iov = iov + i;
        batch[i].msg_hdr.msg_iovlen = 1;
    }
    if (sendmmsg(from, batch, 2, 0) < 0)
        return negative_errno();
    n = recvmmsg(to, batch, 2, MSG_DONTWAIT, NULL);
    return n < 0 ? negative_errno() : n;
}
#else
int lowsock_probe_batches(int from, int to)
{
    (void)from;
    (void)to;
    return -ENOSYS;
}
#endif

int lowsock_interface_index(char *name)
{
    unsigned index = if_nametoindex(name);

    return index == 0 ? negative_errno() : (int)index;
}

int lowsock_interface_name(int index, char *name)
{
    return if_indextoname((unsigned)index, name) == NULL ? negative_errno() : (int)strlen(name);
}
