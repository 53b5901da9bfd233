/* SPDX-License-Identifier: MIT */
/* Messages in batches: sendmmsg(2) and recvmmsg(2), and what stands in for them where they are missing. */
#include "internal.h"
#include "lowsock.h"
#include "control.h"

#if HAVE_MMSG
typedef struct mmsghdr message_header;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} message_header;
#endif

/* Headers of one call, and an iovec for each piece of data. */
struct headers {
    message_header *messages;
    struct iovec *iov;
    char *owned; /* to be freed after the call */
};

enum { STACK_MESSAGES = 64 };
enum { HEADER = sizeof(message_header) + sizeof(struct iovec), STACK_HEADERS = STACK_MESSAGES * HEADER };

union stack_headers {
    message_header align;
    char bytes[STACK_HEADERS];
};

long long lowsock_headers(int count) { return (long long)count * HEADER; }

/* In `given` if there is any, on the caller's stack if that is enough, else allocated. */
static int find_headers(struct headers *headers, char *given, union stack_headers *stack, size_t count, size_t pieces)
{
    size_t size = count * sizeof *headers->messages + pieces * sizeof *headers->iov;
    char *memory = given != NULL ? given : stack->bytes;

    headers->owned = NULL;
    if (given == NULL && size > sizeof stack->bytes)
        memory = headers->owned = malloc(size);
    if (memory == NULL)
        return -ENOMEM;
    memset(memory, 0, size);
    headers->messages = (message_header *)(void *)memory;
    headers->iov = (struct iovec *)(void *)(memory + count * sizeof *headers->messages);
    return 0;
}

static int enter(int *busy) { return __sync_lock_test_and_set(busy, 1) ? -LOWSOCK_BUSY : 0; }

static void leave(int *busy) { __sync_lock_release(busy); }

/* ---- sending ---- */

static size_t size_of(const struct msghdr *message)
{
    size_t size = 0;
    size_t i;

    for (i = 0; i < (size_t)message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    return size;
}

/* Only Linux's own call stops at a message that a stream has taken a part of: the libraries' loops (musl, FreeBSD) go on. */
#if HAVE_MMSG && defined(__GLIBC__)
static int send_many(int fd, message_header *messages, int count, int flags)
{
    return sendmmsg(fd, messages, (unsigned)count, flags);
}
#else
static int send_many(int fd, message_header *messages, int count, int flags)
{
    int i;

    for (i = 0; i < count; i++) {
        ssize_t n = sendmsg(fd, &messages[i].msg_hdr, flags);

        if (n < 0)
            return i > 0 ? i : -1;
        messages[i].msg_len = (unsigned)n;
        if ((size_t)n < size_of(&messages[i].msg_hdr))
            return i + 1;
    }
    return count;
}
#endif

/* Answers how many went whole; `gone` gets how many bytes went of the one after them. */
static int send_whole(int fd, message_header *messages, int count, int flags, long long *gone)
{
    int n = send_many(fd, messages, count, flags);

    *gone = 0;
    if (n < 0)
        return negative_errno();
    if (n > 0 && messages[n - 1].msg_len < size_of(&messages[n - 1].msg_hdr)) {
        n--;
        *gone = messages[n].msg_len;
    }
    return n;
}

static struct iovec *fill_pieces(const struct lowsock_outbox *outbox, struct msghdr *message, struct iovec *iov, int i)
{
    long long start = outbox->starts[i];
    long long count = outbox->pieces != NULL ? outbox->sizes[i] : 1;
    long long k;

    message->msg_iov = iov;
    message->msg_iovlen = (size_t)count;
    if (outbox->pieces == NULL) {
        iov->iov_base = outbox->data + start;
        iov->iov_len = (size_t)outbox->sizes[i];
    } else
        for (k = 0; k < count; k++) {
            iov[k].iov_base = outbox->pieces[start + k];
            iov[k].iov_len = outbox->piece_sizes[start + k];
        }
    return iov + count;
}

static struct iovec *fill_message(const struct lowsock_outbox *outbox, struct msghdr *message, struct iovec *iov, int i)
{
    if (outbox->name_sizes != NULL && outbox->name_sizes[i] > 0) {
        message->msg_name = outbox->names + outbox->name_starts[i];
        message->msg_namelen = (socklen_t)outbox->name_sizes[i];
    }
    if (outbox->control_sizes != NULL && outbox->control_sizes[i] > 0) {
        message->msg_control = outbox->control + outbox->control_starts[i];
        message->msg_controllen = (size_t)outbox->control_sizes[i];
    }
    return fill_pieces(outbox, message, iov, i);
}

/* What a stream has taken of a message is not sent again, nor are its control messages, which went with the first byte. */
static void skip(struct msghdr *message, long long gone)
{
    struct iovec *iov = message->msg_iov;

    if (gone > 0) {
        message->msg_control = NULL;
        message->msg_controllen = 0;
    }
    while (gone > 0) {
        size_t part = (size_t)gone < iov->iov_len ? (size_t)gone : iov->iov_len;

        iov->iov_base = (char *)iov->iov_base + part;
        iov->iov_len -= part;
        gone -= (long long)part;
        iov++;
    }
}

static int send_some(struct lowsock_outbox *outbox, int fd, struct headers *headers, int count, int flags)
{
    struct iovec *iov = headers->iov;
    long long gone;
    int i;
    int n;

    for (i = 0; i < count; i++)
        iov = fill_message(outbox, &headers->messages[i].msg_hdr, iov, outbox->next + i);
    skip(&headers->messages[0].msg_hdr, outbox->gone);
    n = send_whole(fd, headers->messages, count, flags, &gone);
    if (n < 0)
        return n;
    outbox->gone = n > 0 ? gone : outbox->gone + gone;
    outbox->next += n;
    return n;
}

static size_t pieces_of(const struct lowsock_outbox *outbox, int count)
{
    size_t pieces = 0;
    int i;

    if (outbox->pieces == NULL)
        return (size_t)count;
    for (i = 0; i < count; i++)
        pieces += (size_t)outbox->sizes[outbox->next + i];
    return pieces;
}

int lowsock_sendmmsg(struct lowsock_outbox *outbox, int fd, int count, int flags)
{
    union stack_headers stack;
    struct headers headers;
    int n = enter(&outbox->busy);

    if (n < 0)
        return n;
    count -= outbox->next;
    count = count < LOWSOCK_BATCH ? count : LOWSOCK_BATCH;
    if (count > 0)
        n = find_headers(&headers, outbox->headers, &stack, (size_t)count, pieces_of(outbox, count));
    if (count > 0 && n == 0) {
        n = send_some(outbox, fd, &headers, count, flags);
        free(headers.owned);
    }
    leave(&outbox->busy);
    return n;
}

long long lowsock_send_many(int fd, char *data, int *sizes, int count, char *name, int name_size, int flags)
{
    union stack_headers stack;
    struct headers headers;
    long long gone = 0;
    int n = find_headers(&headers, NULL, &stack, (size_t)count, (size_t)count);
    int i;

    if (n < 0)
        return n;
    for (i = 0; i < count; i++) {
        struct msghdr *message = &headers.messages[i].msg_hdr;

        headers.iov[i].iov_base = data;
        headers.iov[i].iov_len = (size_t)sizes[i];
        message->msg_iov = headers.iov + i;
        message->msg_iovlen = 1;
        message->msg_name = name_size > 0 ? name : NULL;
        message->msg_namelen = (socklen_t)name_size;
        data += sizes[i];
    }
    n = send_whole(fd, headers.messages, count, flags, &gone);
    free(headers.owned);
    return n < 0 ? n : n + gone * (LOWSOCK_COUNT + 1LL);
}

long long lowsock_pack_control(char *control, long long space, char *payload, int *table, size_t rows)
{
    size_t need = control_space(table, rows);

    if (space < 0 || need > (size_t)space)
        return -ENOBUFS;
    fill_control(control, need, payload, table, rows);
    return (long long)need;
}

/* ---- receiving ---- */

static long long stride(long long room) { return (room + LOWSOCK_ALIGNED - 1) / LOWSOCK_ALIGNED * LOWSOCK_ALIGNED; }

static char *control_of(const struct lowsock_inbox *inbox, int i) { return inbox->control + i * stride(inbox->room); }

/* The kernel is never asked to wait for all: a signal after the first message would stay behind as the socket's error,
   ERESTARTSYS (Linux 6.18), and its own timeout may last for ever. */
#if HAVE_MMSG
static int receive_many(int fd, message_header *messages, int count, int flags)
{
    return recvmmsg(fd, messages, (unsigned)count, flags | MSG_WAITFORONE, NULL);
}
#else
static int receive_many(int fd, message_header *messages, int count, int flags)
{
    int i;

    for (i = 0; i < count; i++) {
        ssize_t n = recvmsg(fd, &messages[i].msg_hdr, i > 0 ? flags | MSG_DONTWAIT : flags);

        if (n < 0)
            return i > 0 ? i : -1;
        messages[i].msg_len = (unsigned)n;
    }
    return count;
}
#endif

/* Every header is made anew for each call: nothing of an earlier one is left in it. */
static void fill_slots(const struct lowsock_inbox *inbox, struct headers *headers, int first, int count)
{
    int i;

    for (i = 0; i < count; i++) {
        struct msghdr *message = &headers->messages[i].msg_hdr;

        headers->iov[i].iov_base = inbox->data + (first + i) * inbox->size;
        headers->iov[i].iov_len = (size_t)inbox->size;
        message->msg_iov = headers->iov + i;
        message->msg_iovlen = 1;
        message->msg_name = inbox->names + (size_t)(first + i) * LOWSOCK_SOCKADDR;
        message->msg_namelen = LOWSOCK_SOCKADDR;
        message->msg_control = inbox->room > 0 ? control_of(inbox, first + i) : NULL;
        message->msg_controllen = (size_t)inbox->room;
    }
}

static int receive_slots(const struct lowsock_inbox *inbox, struct headers *headers, int fd, int first, int count, int flags)
{
    find_headers(headers, inbox->headers, NULL, (size_t)count, (size_t)count);
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
static int note(struct lowsock_inbox *inbox, int i, const message_header *message, int hidden)
{
    long long control = (long long)message->msg_hdr.msg_controllen;

    inbox->sizes[i] = message->msg_len > (unsigned long long)inbox->size ? inbox->size : (long long)message->msg_len;
    inbox->flags[i] = message->msg_hdr.msg_flags & ~hidden;
    inbox->sources[i] = source_of(inbox, i, message->msg_hdr.msg_namelen);
    inbox->controls[i] = control < inbox->room ? control : inbox->room;
    return (inbox->flags[i] ? LOWSOCK_FLAGS : 0) | (inbox->controls[i] ? LOWSOCK_CONTROL : 0) |
           (same_source(inbox, i) ? 0 : LOWSOCK_SOURCES);
}

static void each_descriptor(const struct lowsock_inbox *inbox, int i, void (*act)(int))
{
    struct cursor cursor = {control_of(inbox, i), control_of(inbox, i) + inbox->controls[i]};
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;
        long long at;
        int fd;

        memcpy(&header, cursor.at, sizeof header);
        if (carries(&header, SCM_RIGHTS) || carries(&header, LOWSOCK_SCM_PIDFD))
            for (at = 0; at + (long long)sizeof fd <= length; at += (long long)sizeof fd) {
                memcpy(&fd, cursor.at + CMSG_LEN(0) + at, sizeof fd);
                act(fd);
            }
        step(&cursor, length);
    }
}

static void close_one(int fd)
{
    if (fd >= 0) /* a pidfd below zero is an errno */
        close(fd);
}

static void set_close_on_exec(int fd) { (void)fcntl(fd, F_SETFD, FD_CLOEXEC); }

void lowsock_inbox_forget(struct lowsock_inbox *inbox)
{
    int i;

    for (i = 0; i < inbox->count; i++)
        inbox->controls[i] = 0;
}

void lowsock_inbox_close(struct lowsock_inbox *inbox)
{
    int i;

    for (i = 0; i < inbox->count; i++)
        each_descriptor(inbox, i, close_one);
    lowsock_inbox_forget(inbox);
}

/* Whether so many slots of the size and the room that the inbox is set to fit into its memory. */
static int fits(const struct lowsock_inbox *inbox, int first, int count)
{
    long long slots = (long long)first + count;

    if (first < 0 || count <= 0 || slots > inbox->slots || inbox->size < 0 || inbox->room < 0)
        return 0;
    return inbox->size <= inbox->data_size / slots && stride(inbox->room) <= inbox->control_size / slots;
}

static int receive(struct lowsock_inbox *inbox, int fd, int first, int count, int flags)
{
    int atomic = inbox->room > 0 ? MSG_CMSG_CLOEXEC & ~flags : 0;
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
        inbox->bits |= note(inbox, first + i, headers.messages + i, MSG_DONTWAIT | atomic);
        if (!atomic && inbox->room > 0)
            each_descriptor(inbox, first + i, set_close_on_exec);
    }
    inbox->count = first + n;
    return inbox->count | inbox->bits;
}

int lowsock_recvmmsg(struct lowsock_inbox *inbox, int fd, int first, int count, long long size, long long room, int flags)
{
    int n = enter(&inbox->busy);

    if (n < 0)
        return n;
    if (first == 0) {
        lowsock_inbox_close(inbox);
        inbox->count = 0;
        inbox->bits = 0;
        inbox->size = size;
        inbox->room = room;
    }
    if (!fits(inbox, first, count)) {
        leave(&inbox->busy);
        return -ENOBUFS;
    }
    if (flags & MSG_TRUNC) /* TCP then counts bytes that it does not copy */
        memset(inbox->data + first * inbox->size, 0, (size_t)(count * inbox->size));
    n = receive(inbox, fd, first, count, flags);
    leave(&inbox->busy);
    return n;
}

long long lowsock_inbox_rows(struct lowsock_inbox *inbox, int first, int count, long long *rows, long long most)
{
    long long need = (long long)count * (1 + LOWSOCK_ROW * (inbox->room / (long long)CMSG_LEN(0) + 1));
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
