/* SPDX-License-Identifier: MIT */
/* Messages sent in batches: sendmmsg(2), and what stands in for it where it is missing. */
#include "internal.h"
#include "lowsock.h"
#include "batch.h"
#include "control.h"

long long lowsock_headers(int count) { return (long long)count * HEADER; }

static size_t size_of(const struct msghdr *message)
{
    size_t size = 0;
    size_t i;

    for (i = 0; i < (size_t)message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    return size;
}

static int send_singly(int fd, message_header *messages, int count, int flags)
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

/* Only Linux's own call stops at a message that a stream has taken a part of: the libraries' loops (musl, FreeBSD) go on. A
   sandbox may lack it. */
static int send_many(int fd, message_header *messages, int count, int flags)
{
#if HAVE_MMSG && defined(__GLIBC__)
    int n = sendmmsg(fd, messages, (unsigned)count, flags);

    if (n >= 0 || errno != ENOSYS)
        return n;
#endif
    return send_singly(fd, messages, count, flags);
}

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

static void fill_beside(const struct lowsock_outbox *outbox, struct msghdr *message, int i)
{
    if (outbox->name_sizes != NULL && outbox->name_sizes[i] > 0) {
        message->msg_name = outbox->names + outbox->name_starts[i];
        message->msg_namelen = (socklen_t)outbox->name_sizes[i];
    }
    if (outbox->control_sizes != NULL && outbox->control_sizes[i] > 0) {
        message->msg_control = outbox->control + outbox->control_starts[i];
        message->msg_controllen = (size_t)outbox->control_sizes[i];
    }
}

/* What a stream has taken of a message is not sent again, nor are its control messages, which went with the first byte. */
static void skip(struct msghdr *message, long long gone)
{
    struct iovec *iov = message->msg_iov;
    struct iovec *end = iov + message->msg_iovlen;

    if (gone > 0) {
        message->msg_control = NULL;
        message->msg_controllen = 0;
    }
    while (gone > 0 && iov < end) {
        size_t part = (size_t)gone < iov->iov_len ? (size_t)gone : iov->iov_len;

        iov->iov_base = (char *)iov->iov_base + part;
        iov->iov_len -= part;
        gone -= (long long)part;
        iov++;
    }
}

static void fill_messages(const struct lowsock_outbox *outbox, struct headers *headers, int first, int count)
{
    struct iovec *iov = headers->iov;
    int i;

    for (i = 0; i < count; i++) {
        fill_beside(outbox, &headers->messages[i].msg_hdr, first + i);
        iov = fill_pieces(outbox, &headers->messages[i].msg_hdr, iov, first + i);
    }
}

static int send_filled(struct lowsock_outbox *outbox, int fd, struct headers *headers, int count, int flags)
{
    long long gone;
    int n;

    skip(&headers->messages[0].msg_hdr, outbox->gone);
    n = send_whole(fd, headers->messages, count, flags, &gone);
    if (n < 0)
        return n;
    outbox->gone = n > 0 ? gone : outbox->gone + gone;
    outbox->next += n;
    return n;
}

static size_t pieces_of(const struct lowsock_outbox *outbox, int first, int count)
{
    size_t pieces = 0;
    int i;

    if (outbox->pieces == NULL)
        return (size_t)count;
    for (i = 0; i < count; i++)
        pieces += (size_t)outbox->sizes[first + i];
    return pieces;
}

int lowsock_sendmmsg(struct lowsock_outbox *outbox, int fd, int count, int flags)
{
    union stack_headers stack;
    struct headers headers;
    int n = enter(&outbox->busy);
    int first;

    if (n < 0)
        return n;
    first = (int)outbox->next;
    count -= first;
    count = count < LOWSOCK_BATCH ? count : LOWSOCK_BATCH;
    if (count > 0)
        n = find_headers(&headers, NULL, &stack, (size_t)count, pieces_of(outbox, first, count));
    if (count > 0 && n == 0) {
        fill_messages(outbox, &headers, first, count);
        n = send_filled(outbox, fd, &headers, count, flags);
        free(headers.owned);
    }
    leave(&outbox->busy);
    return n;
}

/* Where the pieces of messages are that are one piece each: in a row at `data`, or each where `pieces` says. Those beyond
   `size_count` have the last one's size. */
struct held {
    char *data;
    char **pieces;
    const int *sizes;
    int size_count;
};

static void fill_held(struct headers *headers, const struct held *held, int count)
{
    char *data = held->data;
    int i;

    for (i = 0; i < count; i++) {
        struct iovec *iov = headers->iov + i;

        iov->iov_len = (size_t)held->sizes[i < held->size_count ? i : held->size_count - 1];
        iov->iov_base = held->pieces != NULL ? held->pieces[i] : data;
        if (held->pieces == NULL)
            data += iov->iov_len;
        headers->messages[i].msg_hdr.msg_iov = iov;
        headers->messages[i].msg_hdr.msg_iovlen = 1;
    }
}

static void fill_name(struct headers *headers, char *name, int name_size, int count)
{
    int i;

    for (i = 0; i < count && name_size > 0; i++) {
        headers->messages[i].msg_hdr.msg_name = name;
        headers->messages[i].msg_hdr.msg_namelen = (socklen_t)name_size;
    }
}

static int send_next(struct lowsock_outbox *outbox, long long next, int first, struct headers *headers, int count, int fd,
                     int flags)
{
    int n = enter(&outbox->busy);
    int i;

    if (n < 0)
        return n;
    n = -LOWSOCK_MOVED;
    if (outbox->next == next) {
        for (i = 0; i < count; i++)
            fill_beside(outbox, &headers->messages[i].msg_hdr, first + i);
        n = send_filled(outbox, fd, headers, count, flags);
    }
    leave(&outbox->busy);
    return n;
}

static long long send_held(struct lowsock_outbox *outbox, long long next, int first, int count, const struct held *held,
                           char *name, int name_size, int fd, int flags)
{
    union stack_headers stack;
    struct headers headers;
    long long gone = 0;
    int n;

    if (count <= 0 || held->size_count <= 0)
        return -EINVAL;
    n = find_headers(&headers, NULL, &stack, (size_t)count, (size_t)count);
    if (n < 0)
        return n;
    fill_held(&headers, held, count);
    fill_name(&headers, name, name_size, count);
    if (outbox != NULL)
        n = send_next(outbox, next, first, &headers, count, fd, flags);
    else
        n = send_whole(fd, headers.messages, count, flags, &gone);
    free(headers.owned);
    return n < 0 ? n : n + gone * (LOWSOCK_COUNT + 1LL);
}

long long lowsock_send_joined(struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
                              char *name, int name_size, int fd, int flags, char *data)
{
    struct held held = {data, NULL, sizes, size_count};

    return send_held(outbox, next, first, count, &held, name, name_size, fd, flags);
}

long long lowsock_send_pieces(
    struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
    char *name, int name_size, int fd, int flags,
    char *p00, char *p01, char *p02, char *p03, char *p04, char *p05, char *p06, char *p07,
    char *p08, char *p09, char *p10, char *p11, char *p12, char *p13, char *p14, char *p15,
    char *p16, char *p17, char *p18, char *p19, char *p20, char *p21, char *p22, char *p23,
    char *p24, char *p25, char *p26, char *p27, char *p28, char *p29, char *p30, char *p31,
    char *p32, char *p33, char *p34, char *p35, char *p36, char *p37, char *p38, char *p39,
    char *p40, char *p41, char *p42, char *p43, char *p44, char *p45, char *p46, char *p47,
    char *p48, char *p49, char *p50, char *p51, char *p52, char *p53, char *p54, char *p55,
    char *p56, char *p57, char *p58, char *p59, char *p60, char *p61, char *p62, char *p63)
{
    char *pieces[LOWSOCK_PIECES] = {
        p00, p01, p02, p03, p04, p05, p06, p07, p08, p09, p10, p11, p12, p13, p14, p15,
        p16, p17, p18, p19, p20, p21, p22, p23, p24, p25, p26, p27, p28, p29, p30, p31,
        p32, p33, p34, p35, p36, p37, p38, p39, p40, p41, p42, p43, p44, p45, p46, p47,
        p48, p49, p50, p51, p52, p53, p54, p55, p56, p57, p58, p59, p60, p61, p62, p63};
    struct held held = {NULL, pieces, sizes, size_count};

    if (count > LOWSOCK_PIECES)
        return -EINVAL;
    return send_held(outbox, next, first, count, &held, name, name_size, fd, flags);
}

long long lowsock_outbox_skip(struct lowsock_outbox *outbox, long long next, int whole)
{
    long long n = enter(&outbox->busy);

    if (n < 0)
        return n;
    if (whole && outbox->gone > 0)
        n = outbox->gone;
    else if (outbox->next < next) {
        outbox->next = next;
        outbox->gone = 0;
    }
    leave(&outbox->busy);
    return n;
}

long long lowsock_pack_control(char *control, long long space, char *payload, int *table, size_t rows)
{
    size_t need = control_space(table, rows);

    if (space < 0 || need > (size_t)space)
        return -ENOBUFS;
    fill_control(control, need, payload, table, rows);
    return (long long)need;
}
