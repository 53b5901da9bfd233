/* SPDX-License-Identifier: MIT */
/* Datagrams received in bulk, and what their control messages say. */
#include "internal.h"
#include "lowsock.h"
#include "batch.h"
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

/* Reads the segment's size and the time from `size` bytes of control data, drops the socket layer's other messages (counters
   change each time), and copies the rest to `to`. Answers the bytes copied. */
static int filter_control(struct lowsock_arrival *arrival, char *control, long long size, char *to, int *segment)
{
    struct cursor cursor = {control, control + size};
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

/* Whether source, control messages or flags differ from the last time; afterwards `arrival` has them. */
static int has_changed(struct lowsock_arrival *arrival, const char *name, int name_size, const char *filtered,
                       int filtered_size, int flags)
{
    char *key = arrival->key;
    int same = name_size == arrival->name_size && filtered_size == arrival->control_size && flags == arrival->flags;

    if (same && memcmp(key, name, (size_t)name_size) == 0 && memcmp(key + name_size, filtered, (size_t)filtered_size) == 0)
        return 0;
    memcpy(key, name, (size_t)name_size);
    memcpy(key + name_size, filtered, (size_t)filtered_size);
    arrival->name_size = name_size;
    arrival->control_size = filtered_size;
    arrival->flags = flags;
    return 1;
}

static void fill_slot(struct msghdr *header, struct iovec *iov, size_t count, char *name, char *control)
{
    memset(header, 0, sizeof *header);
    header->msg_iov = iov;
    header->msg_iovlen = count;
    header->msg_name = name;
    header->msg_namelen = LOWSOCK_SOCKADDR;
    header->msg_control = control;
    header->msg_controllen = LOWSOCK_CONTROL_ROOM;
}

/* The answer for a receive of `size` bytes of data. */
static long long make_answer(struct lowsock_arrival *arrival, const struct msghdr *header, long long size)
{
    char filtered[LOWSOCK_CONTROL_ROOM];
    long long control = (long long)header->msg_controllen;
    int name_size = header->msg_namelen < LOWSOCK_SOCKADDR ? (int)header->msg_namelen : LOWSOCK_SOCKADDR;
    int segment = 0;
    int filtered_size;
    int changed;

    arrival->time = -1;
    control = control < LOWSOCK_CONTROL_ROOM ? control : LOWSOCK_CONTROL_ROOM;
    filtered_size = filter_control(arrival, header->msg_control, control, filtered, &segment);
    changed = has_changed(arrival, header->msg_name, name_size, filtered, filtered_size, header->msg_flags & ~MSG_DONTWAIT);
    return size | (long long)segment << LOWSOCK_SEGMENT_SHIFT | (long long)changed << LOWSOCK_CHANGED_SHIFT;
}

/* ---- one receive ---- */

static long long receive(struct lowsock_arrival *arrival, int fd, struct iovec *iov, size_t count, long long room, int flags)
{
    struct msghdr header;
    ssize_t n;

    fill_slot(&header, iov, count, arrival->name, arrival->control);
    n = recvmsg(fd, &header, flags);
    if (n < 0)
        return negative_errno();
    return make_answer(arrival, &header, n < room ? n : room); /* MSG_TRUNC as an input flag gives the real length */
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

/* ---- a burst ---- */

/* Keeps the key of slot `i`, which has changed: the next slot may change it again. */
static void keep_key(const struct lowsock_arrival *arrival, struct lowsock_burst *burst, int i)
{
    memcpy(burst->keys + i * LOWSOCK_KEY, arrival->key, (size_t)(arrival->name_size + arrival->control_size));
    burst->changes[3 * i] = arrival->name_size;
    burst->changes[3 * i + 1] = arrival->control_size;
    burst->changes[3 * i + 2] = arrival->flags;
}

long long lowsock_udp_recv_burst(struct lowsock_arrival *arrival, struct lowsock_burst *burst, int fd, int flags)
{
    message_header messages[LOWSOCK_BURST];
    struct iovec iov[LOWSOCK_BURST];
    long long more = 0;
    int uniform = 1;
    int n;
    int i;

    memset(messages, 0, sizeof messages);
    for (i = 0; i < LOWSOCK_BURST; i++) {
        iov[i].iov_base = burst->data + i * LOWSOCK_DATAGRAM;
        iov[i].iov_len = LOWSOCK_DATAGRAM;
        fill_slot(&messages[i].msg_hdr, &iov[i], 1, burst->names + i * LOWSOCK_SOCKADDR,
                  burst->control + i * LOWSOCK_CONTROL_ROOM);
    }
    n = receive_many(fd, messages, LOWSOCK_BURST, flags);
    if (n < 0)
        return negative_errno();
    for (i = 0; i < n; i++) {
        long long size = messages[i].msg_len < LOWSOCK_DATAGRAM ? (long long)messages[i].msg_len : LOWSOCK_DATAGRAM;
        long long answer = burst->answers[i] = make_answer(arrival, &messages[i].msg_hdr, size);

        burst->times[i] = arrival->time;
        if (answer >> LOWSOCK_CHANGED_SHIFT)
            keep_key(arrival, burst, i);
        uniform &= answer == burst->answers[0];
        more |= answer >> LOWSOCK_SEGMENT_SHIFT;
    }
    if (more)
        return n | 1LL << LOWSOCK_CHANGED_SHIFT;
    return n | (uniform ? burst->answers[0] : (long long)LOWSOCK_SIZE) << LOWSOCK_SEGMENT_SHIFT;
}
