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
    struct msghdr msg;
    struct cmsghdr *header;

    memset(&msg, 0, sizeof msg);
    memset(&control, 0, sizeof control);
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_name = name_length ? (char *)name : NULL;
    msg.msg_namelen = (socklen_t)name_length;
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = SOL_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(header), &segment, sizeof segment);
    return sendmsg(fd, &msg, 0);
}

static ssize_t receive_bulk(int fd, char *data)
{
    union {
        char bytes[BULK_CONTROL];
        struct cmsghdr align;
    } control;
    struct sockaddr_storage name;
    struct iovec iov = {data, BULK};
    struct msghdr msg;

    memset(&msg, 0, sizeof msg);
    msg.msg_name = &name;
    msg.msg_namelen = sizeof name;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    return recvmsg(fd, &msg, 0);
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
                return -errno;
            left -= (size_t)got;
        }
    }
    return 0;
}
