/* SPDX-License-Identifier: MIT */
/* Datagrams sent in bulk, with a control buffer that is ready. */
#include "internal.h"
#include "lowsock.h"
#include "batch.h"

enum { STACK_DATAGRAMS = 64 /* that are passed to one sendmmsg(2) */ };

/* What the headers of all datagrams of one send have in common. */
struct common_header {
    char *control;
    int control_size;
    char *name;
    int name_size;
};

static void fill_header(struct msghdr *header, struct iovec *iov, const struct common_header *common)
{
    header->msg_iov = iov;
    header->msg_iovlen = 1;
    header->msg_name = common->name_size > 0 ? common->name : NULL;
    header->msg_namelen = (socklen_t)common->name_size;
    header->msg_control = common->control_size > 0 ? common->control : NULL;
    header->msg_controllen = (size_t)common->control_size;
}

long long lowsock_udp_send(int fd, char *data, long long size, char *control, int control_size,
                           char *name, int name_size, int flags)
{
    struct common_header common = {control, control_size, name, name_size};
    struct msghdr header;
    struct iovec iov;
    ssize_t n;

    memset(&header, 0, sizeof header);
    iov.iov_base = data;
    iov.iov_len = (size_t)size;
    fill_header(&header, &iov, &common);
    n = sendmsg(fd, &header, flags);
    return n < 0 ? negative_errno() : n;
}

/* Fills headers for at most `most` datagrams of what is left; answers how many. No data is one empty datagram. */
static int split(message_header *messages, struct iovec *iov, int most, char *data, long long size, long long segment,
                 const struct common_header *common)
{
    int count = 0;

    memset(messages, 0, (size_t)most * sizeof *messages);
    do {
        iov[count].iov_base = data;
        iov[count].iov_len = (size_t)(size < segment ? size : segment);
        fill_header(&messages[count].msg_hdr, &iov[count], common);
        data += iov[count].iov_len;
        size -= (long long)iov[count].iov_len;
        count++;
    } while (count < most && size > 0);
    return count;
}

static int send_singly(int fd, message_header *messages, int count, int flags)
{
    int i;

    for (i = 0; i < count; i++)
        if (sendmsg(fd, &messages[i].msg_hdr, flags) < 0)
            return i > 0 ? i : -1;
    return count;
}

#if HAVE_MMSG
static int send_some(int fd, message_header *messages, int count, int flags)
{
    int n = sendmmsg(fd, messages, (unsigned)count, flags);

    return n < 0 && errno == ENOSYS ? send_singly(fd, messages, count, flags) : n; /* a sandbox may lack it */
}
#else
static int send_some(int fd, message_header *messages, int count, int flags)
{
    return send_singly(fd, messages, count, flags);
}
#endif

int lowsock_udp_send_each(int fd, char *data, long long size, long long segment, char *control, int control_size,
                          char *name, int name_size, int flags)
{
    struct common_header common = {control, control_size, name, name_size};
    message_header messages[STACK_DATAGRAMS];
    struct iovec iov[STACK_DATAGRAMS];
    int sent = 0;

    if (segment < 1)
        return -EINVAL;
    do {
        int count = split(messages, iov, STACK_DATAGRAMS, data, size, segment, &common);
        int n = send_some(fd, messages, count, flags);

        if (n < 0)
            return sent > 0 ? sent : negative_errno();
        sent += n;
        if (n < count)
            break;
        data += count * segment; /* the last may be shorter, and then nothing is left */
        size -= count * segment;
    } while (size > 0 && sent < LOWSOCK_BATCH);
    return sent;
}

int lowsock_udp_peer(int fd, char *name)
{
    socklen_t size = LOWSOCK_SOCKADDR;

    if (getpeername(fd, (struct sockaddr *)(void *)name, &size) < 0)
        return negative_errno();
    return size < LOWSOCK_SOCKADDR ? (int)size : LOWSOCK_SOCKADDR;
}
