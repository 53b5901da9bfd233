/* SPDX-License-Identifier: MIT */
/* The C side of the benchmarks of segmentation offload. Comes after loops.c, in one file for the compiler. */

#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { BULK = 65536, BULK_CONTROL = 256 };

static ssize_t send_bulk(int fd, char *data, size_t length, uint16_t segment, const char *name, size_t name_length)
{
    union {
        char bytes[CMSG_SPACE(sizeof segment)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {data, length};
    struct msghdr message = header(&iov, 1);

    message.msg_name = name_length ? (char *)name : NULL;
    message.msg_namelen = (socklen_t)name_length;
    attach(&message, control.bytes, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    return sendmsg(fd, &message, 0);
}

static ssize_t receive_bulk(int fd, char *data)
{
    struct iovec iov = {data, BULK};

    return receive_one(fd, &iov, 1, BULK_CONTROL);
}

int loop_offload(int from, int to, size_t size, int count, const char *name, size_t name_length, int n)
{
    static char out[BULK];
    static char in[BULK];

    while (n-- > 0) {
        size_t left = size * (size_t)count;

        if (send_bulk(from, out, left, (uint16_t)size, name, name_length) < 0)
            return -errno;
        while (left > 0) {
            ssize_t got = receive_bulk(to, in);

            if (got < 0)
                return (int)got;
            left -= (size_t)got;
        }
    }
    return 0;
}
