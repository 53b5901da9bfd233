/* SPDX-License-Identifier: MIT */
/* Messages received in batches: recvmmsg(2), and what stands in for it where it is missing. */
#include "internal.h"
#include "lowsock.h"
#include "batch.h"
#include "control.h"

static long long stride(long long ancbufsize) { return (ancbufsize + LOWSOCK_ALIGNED - 1) / LOWSOCK_ALIGNED * LOWSOCK_ALIGNED; }

static char *control_of(const struct lowsock_inbox *inbox, int i) { return inbox->control + i * stride(inbox->ancbufsize); }

/* Every header is made anew for each call: nothing of an earlier one is left in it. */
static void fill_slots(const struct lowsock_inbox *inbox, struct headers *headers, int first, int count)
{
    int i;

    for (i = 0; i < count; i++) {
        struct msghdr *message = &headers->messages[i].msg_hdr;

        headers->iov[i].iov_base = inbox->data + (first + i) * inbox->bufsize;
        headers->iov[i].iov_len = (size_t)inbox->bufsize;
        message->msg_iov = headers->iov + i;
        message->msg_iovlen = 1;
        message->msg_name = inbox->names + (size_t)(first + i) * LOWSOCK_SOCKADDR;
        message->msg_namelen = LOWSOCK_SOCKADDR;
        message->msg_control = inbox->ancbufsize > 0 ? control_of(inbox, first + i) : NULL;
        message->msg_controllen = (size_t)inbox->ancbufsize;
    }
}

static int receive_slots(const struct lowsock_inbox *inbox, struct headers *headers, int fd, int first, int count, int flags)
{
    prepare_headers(headers, inbox->headers, NULL, (size_t)count, (size_t)count);
    fill_slots(inbox, headers, first, count);
    return receive_many(fd, headers->messages, count, flags);
}

static long long source_of(const struct lowsock_inbox *inbox, int i, socklen_t size)
{
    long long source;

    if (size > LOWSOCK_SOCKADDR)
        size = LOWSOCK_SOCKADDR;
    source = inet_source(inbox->names + (size_t)i * LOWSOCK_SOCKADDR, size);
    return source == -2 ? -1 - (long long)size : source;
}

static int same_source(const struct lowsock_inbox *inbox, int i)
{
    long long source = inbox->sources[i];

    if (source != inbox->sources[0])
        return 0;
    return source >= -1 || memcmp(inbox->names, inbox->names + (size_t)i * LOWSOCK_SOCKADDR, (size_t)(-1 - source)) == 0;
}

/* Notes a message in the columns; answers which of them are worth a look. */
static int note_slot(struct lowsock_inbox *inbox, int i, const message_header *message, int hidden)
{
    long long control = (long long)message->msg_hdr.msg_controllen;

    inbox->sizes[i] = message->msg_len > (unsigned long long)inbox->bufsize ? inbox->bufsize : (long long)message->msg_len;
    inbox->flags[i] = message->msg_hdr.msg_flags & ~hidden;
    inbox->sources[i] = source_of(inbox, i, message->msg_hdr.msg_namelen);
    inbox->controls[i] = control < inbox->ancbufsize ? control : inbox->ancbufsize;
    return (inbox->flags[i] ? LOWSOCK_FLAGS : 0) | (inbox->controls[i] ? LOWSOCK_CONTROL : 0) |
           (same_source(inbox, i) ? 0 : LOWSOCK_SOURCES) | (inbox->sizes[i] == inbox->sizes[0] ? 0 : LOWSOCK_SIZES);
}

typedef void action(int fd, struct lowsock_inbox *inbox, struct lowsock_owned *owned);

/* Acts on the descriptors of slot `i`, in messages of one type. */
static void each_of(struct lowsock_inbox *inbox, int i, int type, action *act, struct lowsock_owned *owned)
{
    struct cursor cursor = {control_of(inbox, i), control_of(inbox, i) + inbox->controls[i]};
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;
        long long at;
        int fd;

        memcpy(&header, cursor.at, sizeof header);
        if (carries(&header, type))
            for (at = 0; at + (long long)sizeof fd <= length; at += (long long)sizeof fd) {
                memcpy(&fd, cursor.at + CMSG_LEN(0) + at, sizeof fd);
                if (fd >= 0) /* a pidfd below zero is an errno */
                    act(fd, inbox, owned);
            }
        advance(&cursor, length);
    }
}

static void each_descriptor(struct lowsock_inbox *inbox, int i, action *act)
{
    each_of(inbox, i, SCM_RIGHTS, act, NULL);
    each_of(inbox, i, LOWSOCK_SCM_PIDFD, act, NULL);
}

static void close_one(int fd, struct lowsock_inbox *inbox, struct lowsock_owned *owned)
{
    (void)owned;
    if (close(fd) < 0 && errno == EBADF)
        inbox->missed++;
}

static void set_close_on_exec(int fd, struct lowsock_inbox *inbox, struct lowsock_owned *owned)
{
    (void)inbox;
    (void)owned;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void move_one(int fd, struct lowsock_inbox *inbox, struct lowsock_owned *owned)
{
    (void)inbox;
    owned->fds[owned->count++] = fd;
}

void lowsock_inbox_forget(struct lowsock_inbox *inbox)
{
    int i;

    for (i = 0; i < inbox->count; i++)
        inbox->controls[i] = 0;
}

static void close_all(struct lowsock_inbox *inbox)
{
    int i;

    inbox->missed = 0;
    for (i = 0; i < inbox->count; i++)
        each_descriptor(inbox, i, close_one);
    lowsock_inbox_forget(inbox);
    inbox->generation++;
}

/* Two threads may call this: one of them closes. While another call is under way it does nothing: whoever made that call
   closes afterwards what need not be kept. */
void lowsock_inbox_close(struct lowsock_inbox *inbox)
{
    if (try_lock(&inbox->busy) < 0)
        return;
    close_all(inbox);
    unlock(&inbox->busy);
}

/* The owner has room for all that the slot can hold. */
int lowsock_inbox_move_out(struct lowsock_inbox *inbox, int i, long long generation, struct lowsock_owned *owned)
{
    int n = try_lock(&inbox->busy);

    if (n < 0)
        return n;
    n = inbox->generation == generation ? 0 : -LOWSOCK_BUSY;
    if (n == 0) {
        each_of(inbox, i, SCM_RIGHTS, move_one, owned);
        n = owned->count;
        each_of(inbox, i, LOWSOCK_SCM_PIDFD, move_one, owned);
        owned->pidfd = owned->count > n ? owned->count : 0;
        inbox->controls[i] = 0;
        n = owned->count;
    }
    unlock(&inbox->busy);
    return n;
}

void lowsock_inbox_take_back(struct lowsock_inbox *inbox, int i, long long generation, long long control,
                             struct lowsock_owned *owned)
{
    if (try_lock(&inbox->busy) == 0) {
        if (inbox->generation == generation && owned->count > 0) {
            inbox->controls[i] = control;
            owned->disarmed = 1;
        }
        unlock(&inbox->busy);
    }
    (void)lowsock_owned_close(owned); /* unless the inbox has them */
}

/* Whether so many slots of `bufsize` and `ancbufsize` bytes fit into the inbox's memory. */
static int fits(const struct lowsock_inbox *inbox, int first, int count)
{
    long long slots = (long long)first + count;

    if (first < 0 || count <= 0 || slots > inbox->slots || inbox->bufsize < 0 || inbox->ancbufsize < 0)
        return 0;
    return inbox->bufsize <= inbox->data_size / slots && stride(inbox->ancbufsize) <= inbox->control_size / slots;
}

static long long receive(struct lowsock_inbox *inbox, int fd, int first, int count, int flags)
{
    int atomic = inbox->ancbufsize > 0 ? MSG_CMSG_CLOEXEC & ~flags : 0;
    long long bits = inbox->answer & ~(long long)LOWSOCK_COUNT;
    struct headers headers;
    int i;
    int n = receive_slots(inbox, &headers, fd, first, count, flags | atomic);

    if (n < 0 && errno == EINVAL && atomic) { /* AF_PACKET refuses flags that it does not know */
        atomic = 0;
        n = receive_slots(inbox, &headers, fd, first, count, flags);
    }
    if (n < 0)
        return negative_errno();
    for (i = 0; i < n; i++) {
        bits |= note_slot(inbox, first + i, headers.messages + i, MSG_DONTWAIT | atomic);
        if (!atomic && inbox->ancbufsize > 0)
            each_descriptor(inbox, first + i, set_close_on_exec);
    }
    inbox->count = first + n;
    if (first == 0 && n > 0)
        bits |= inbox->sizes[0] << LOWSOCK_FIRST_SHIFT;
    inbox->answer = inbox->count | bits;
    return inbox->answer;
}

/* Closes the descriptors that nobody has taken over if `first` is 0. */
long long lowsock_recvmmsg(struct lowsock_inbox *inbox, int fd, int first, int count, long long bufsize, long long ancbufsize,
                           int flags)
{
    long long n = try_lock(&inbox->busy);

    if (n < 0)
        return n;
    if (first == 0) {
        close_all(inbox);
        inbox->count = 0;
        inbox->answer = 0;
        inbox->bufsize = bufsize;
        inbox->ancbufsize = ancbufsize;
    }
    if (!fits(inbox, first, count)) {
        unlock(&inbox->busy);
        return -ENOBUFS;
    }
    if (flags & MSG_TRUNC) /* TCP then counts bytes that it does not copy */
        memset(inbox->data + first * inbox->bufsize, 0, (size_t)(count * inbox->bufsize));
    n = receive(inbox, fd, first, count, flags);
    unlock(&inbox->busy);
    return n;
}

/* Answers how many numbers it has written, or -ENOBUFS if `most` might not do. */
long long lowsock_inbox_rows(struct lowsock_inbox *inbox, int first, int count, long long *rows, long long most)
{
    long long need = (long long)count * (1 + LOWSOCK_ROW * (inbox->ancbufsize / (long long)CMSG_LEN(0) + 1));
    long long *at = rows;
    int i;

    if (first < 0 || count < 0 || first + count > inbox->count || need > most)
        return -ENOBUFS;
    for (i = first; i < first + count; i++) {
        *at = note_rows(control_of(inbox, i), inbox->controls[i], at + 1);
        at += 1 + *at;
    }
    return at - rows;
}
