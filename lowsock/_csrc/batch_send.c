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
