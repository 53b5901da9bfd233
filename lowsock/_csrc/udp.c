/* SPDX-License-Identifier: MIT */
/* Datagrams in bulk: sends with a control buffer that is ready, receives whose control messages are told apart here. */
#include "internal.h"
#include "lowsock.h"
#include "control.h"

#include <sys/time.h>
#include <time.h>

#ifdef __linux__
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_GRO /* Linux 5.0 */
#define UDP_GRO 104
#endif
#endif

#if HAVE_MMSG
typedef struct mmsghdr message_header;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} message_header;
#endif

/* What all datagrams of one send have in common. */
struct beside {
    char *control;
    int control_size;
    char *name;
    int name_size;
};

static void fill_header(struct msghdr *header, struct iovec *iov, const struct beside *beside)
{
    header->msg_iov = iov;
    header->msg_iovlen = 1;
    header->msg_name = beside->name_size > 0 ? beside->name : NULL;
    header->msg_namelen = (socklen_t)beside->name_size;
    header->msg_control = beside->control_size > 0 ? beside->control : NULL;
    header->msg_controllen = (size_t)beside->control_size;
}

/* ---- sending ---- */

long long lowsock_udp_send(int fd, char *data, long long size, char *control, int control_size,
                           char *name, int name_size, int flags)
{
    struct beside beside = {control, control_size, name, name_size};
    struct msghdr header;
    struct iovec iov;
    ssize_t n;

    memset(&header, 0, sizeof header);
    iov.iov_base = data;
    iov.iov_len = (size_t)size;
    fill_header(&header, &iov, &beside);
    n = sendmsg(fd, &header, flags);
    return n < 0 ? negative_errno() : n;
}

/* Fills headers for at most `most` datagrams of what is left; answers how many. There is one at least: an empty one. */
static int cut(message_header *messages, struct iovec *iov, int most, char *data, long long size, long long segment,
               const struct beside *beside)
{
    int count = 0;

    memset(messages, 0, (size_t)most * sizeof *messages);
    do {
        iov[count].iov_base = data;
        iov[count].iov_len = (size_t)(size < segment ? size : segment);
        fill_header(&messages[count].msg_hdr, &iov[count], beside);
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
    struct beside beside = {control, control_size, name, name_size};
    message_header messages[LOWSOCK_CUT];
    struct iovec iov[LOWSOCK_CUT];
    int sent = 0;

    if (segment < 1)
        return -EINVAL;
    do {
        int count = cut(messages, iov, LOWSOCK_CUT, data, size, segment, &beside);
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

/* ---- receiving ---- */

/* A time of two numbers of the same width, in nanoseconds; `unit` is what the second one counts. */
static long long two_numbers(const char *payload, long long length, long long unit)
{
    int narrow[2];
    long long wide[2];

    if (length == (long long)sizeof wide)
        memcpy(wide, payload, sizeof wide);
    else if (length == (long long)sizeof narrow) {
        memcpy(narrow, payload, sizeof narrow);
        wide[0] = narrow[0];
        wide[1] = narrow[1];
    } else
        return -1;
    /* unsigned: whatever the numbers are, they must not overflow */
    return (long long)((unsigned long long)wide[0] * 1000000000ULL + (unsigned long long)wide[1] * (unsigned long long)unit);
}

static long long time_of(const struct cmsghdr *header, const char *payload, long long length)
{
    int type = header->cmsg_type;

#ifdef SCM_TIMESTAMPNS
    if (type == SCM_TIMESTAMPNS)
        return two_numbers(payload, length, 1);
#endif
#if defined(__linux__) && defined(SO_TIMESTAMPNS_NEW)
    if (type == SO_TIMESTAMPNS_NEW || type == SO_TIMESTAMPNS_OLD)
        return two_numbers(payload, length, 1);
#endif
#ifdef SCM_TIMESTAMP
    if (type == SCM_TIMESTAMP)
        return two_numbers(payload, length, 1000);
#endif
    return -1;
}

static int segment_of(const struct cmsghdr *header, const char *payload, long long length)
{
#ifdef UDP_GRO
    unsigned short narrow;
    int wide;

    if (header->cmsg_level != SOL_UDP || header->cmsg_type != UDP_GRO)
        return -1;
    if (length >= (long long)sizeof wide) {
        memcpy(&wide, payload, sizeof wide);
        return wide > 0 && wide <= LOWSOCK_DATAGRAM ? wide : 0;
    }
    if (length < (long long)sizeof narrow)
        return 0;
    memcpy(&narrow, payload, sizeof narrow);
    return narrow;
#else
    (void)header;
    (void)payload;
    (void)length;
    return -1;
#endif
}

/* Goes through `size` bytes of control data: takes out the segment's size and the time, leaves out what else is the socket
   layer's (counters change each time), and copies the rest to `to`. Answers the bytes copied. */
static int sort(struct lowsock_arrival *arrival, long long size, char *to, int *segment)
{
    struct cursor cursor = {arrival->control, arrival->control + size};
    char *start = to;
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;
        const char *payload = cursor.at + CMSG_LEN(0);
        char *at = cursor.at;
        int found;

        memcpy(&header, at, sizeof header);
        step(&cursor, length);
        found = segment_of(&header, payload, length);
        if (found >= 0)
            *segment = found;
        else if (header.cmsg_level == SOL_SOCKET) {
            long long time = time_of(&header, payload, length);

            if (time >= 0)
                arrival->time = time;
        } else {
            memcpy(to, at, (size_t)(cursor.at - at));
            to += cursor.at - at;
        }
    }
    return (int)(to - start);
}

/* Whether the source and the control messages are others than the last time; they are in `key` afterwards. */
static int is_news(struct lowsock_arrival *arrival, const char *told, int told_size, int name_size)
{
    char *name = arrival->key;
    int same = name_size == arrival->name_size && told_size == arrival->told_size;

    if (same && memcmp(name, arrival->name, (size_t)name_size) == 0 &&
        memcmp(name + name_size, told, (size_t)told_size) == 0)
        return 0;
    memcpy(name, arrival->name, (size_t)name_size);
    memcpy(name + name_size, told, (size_t)told_size);
    arrival->name_size = name_size;
    arrival->told_size = told_size;
    return 1;
}

static long long receive(struct lowsock_arrival *arrival, int fd, struct iovec *iov, size_t count, long long room, int flags)
{
    char told[LOWSOCK_TOLD];
    struct msghdr header;
    long long size;
    long long control;
    int segment = 0;
    int name_size;
    ssize_t n;

    memset(&header, 0, sizeof header);
    header.msg_iov = iov;
    header.msg_iovlen = count;
    header.msg_name = arrival->name;
    header.msg_namelen = LOWSOCK_SOCKADDR;
    header.msg_control = arrival->control;
    header.msg_controllen = LOWSOCK_TOLD;
    n = recvmsg(fd, &header, flags);
    if (n < 0)
        return negative_errno();
    size = n < room ? n : room; /* MSG_TRUNC as an input flag gives the real length */
    control = (long long)header.msg_controllen < LOWSOCK_TOLD ? (long long)header.msg_controllen : LOWSOCK_TOLD;
    name_size = header.msg_namelen < LOWSOCK_SOCKADDR ? (int)header.msg_namelen : LOWSOCK_SOCKADDR;
    arrival->time = -1;
    arrival->flags = header.msg_flags & ~MSG_DONTWAIT;
    control = sort(arrival, control, told, &segment);
    return size | (long long)segment << LOWSOCK_SEGMENT_SHIFT |
           (long long)is_news(arrival, told, (int)control, name_size) << LOWSOCK_NEWS_SHIFT;
}

long long lowsock_udp_recv(struct lowsock_arrival *arrival, int fd, long long size, int flags)
{
    struct iovec iov;

    if (size < 0 || size > LOWSOCK_DATAGRAM)
        return -ENOBUFS;
    iov.iov_base = arrival->data;
    iov.iov_len = (size_t)size;
    return receive(arrival, fd, &iov, 1, size, flags);
}

long long lowsock_udp_recv_into(struct lowsock_arrival *arrival, int fd, char **bases, size_t *sizes, size_t count, int flags)
{
    struct iovec stack[STACK_IOVECS];
    struct iovec *iov = fill_iovecs(stack, bases, sizes, count);
    long long room = 0;
    long long answer;
    size_t i;

    if (iov == NULL)
        return -ENOMEM;
    for (i = 0; i < count; i++)
        room += (long long)sizes[i];
    answer = receive(arrival, fd, iov, count, room, flags);
    drop_iovecs(stack, iov);
    return answer;
}

int lowsock_udp_mapped(int fd)
{
    struct sockaddr_in6 peer;
    socklen_t size = sizeof peer;

    memset(&peer, 0, sizeof peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
        return negative_errno();
    return peer.sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr);
}
