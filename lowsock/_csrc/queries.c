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

int lowsock_shutdown(int fd, int how) { return shutdown(fd, how) < 0 ? negative_errno() : 0; }

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

int lowsock_interface_index(char *name)
{
    unsigned index = if_nametoindex(name);

    return index == 0 ? negative_errno() : (int)index;
}

int lowsock_interface_name(int index, char *name)
{
    return if_indextoname((unsigned)index, name) == NULL ? negative_errno() : (int)strlen(name);
}
