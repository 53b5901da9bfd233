/* SPDX-License-Identifier: MIT */
/* Messages sent in batches: sendmmsg(2), and what stands in for it where it is missing. */
#include "internal.h"
#include "lowsock.h"
#include "batch.h"
#include "control.h"

long long lowsock_headers_size(int count) { return (long long)count * HEADER; }

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

/* Only Linux's own call stops at a message that a stream took in part: the libraries' loops (musl, FreeBSD) go on. A sandbox
   may lack it. */
static int send_many(int fd, message_header *messages, int count, int flags)
{
#if HAVE_MMSG && defined(__GLIBC__)
    int n = sendmmsg(fd, messages, (unsigned)count, flags);

    if (n >= 0 || errno != ENOSYS)
        return n;
#endif
    return send_singly(fd, messages, count, flags);
}

/* Answers how many the kernel took whole; `partial` gets the bytes that it took of the next one. */
static int send_whole(int fd, message_header *messages, int count, int flags, long long *partial)
{
    int n = send_many(fd, messages, count, flags);

    *partial = 0;
    if (n < 0)
        return negative_errno();
    if (n > 0 && messages[n - 1].msg_len < size_of(&messages[n - 1].msg_hdr)) {
        n--;
        *partial = messages[n].msg_len;
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

static void fill_name_and_control(const struct lowsock_outbox *outbox, struct msghdr *message, int i)
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

/* Leaves out the `partial` bytes that a stream has taken of a message, and its control messages, which went with the first
   byte. */
static void skip_sent(struct msghdr *message, long long partial)
{
    struct iovec *iov = message->msg_iov;
    struct iovec *end = iov + message->msg_iovlen;

    if (partial > 0) {
        message->msg_control = NULL;
        message->msg_controllen = 0;
    }
    while (partial > 0 && iov < end) {
        size_t part = (size_t)partial < iov->iov_len ? (size_t)partial : iov->iov_len;

        iov->iov_base = (char *)iov->iov_base + part;
        iov->iov_len -= part;
        partial -= (long long)part;
        iov++;
    }
}

static void fill_messages(const struct lowsock_outbox *outbox, struct headers *headers, int first, int count)
{
    struct iovec *iov = headers->iov;
    int i;

    for (i = 0; i < count; i++) {
        fill_name_and_control(outbox, &headers->messages[i].msg_hdr, first + i);
        iov = fill_pieces(outbox, &headers->messages[i].msg_hdr, iov, first + i);
    }
}

static int send_filled(struct lowsock_outbox *outbox, int fd, struct headers *headers, int count, int flags)
{
    long long partial;
    int n;

    skip_sent(&headers->messages[0].msg_hdr, outbox->partial);
    n = send_whole(fd, headers->messages, count, flags, &partial);
    if (n < 0)
        return n;
    outbox->partial = n > 0 ? partial : outbox->partial + partial;
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
    int n = try_lock(&outbox->busy);
    int first;

    if (n < 0)
        return n;
    first = (int)outbox->next;
    count -= first;
    count = count < LOWSOCK_BATCH ? count : LOWSOCK_BATCH;
    if (count > 0)
        n = prepare_headers(&headers, NULL, &stack, (size_t)count, pieces_of(outbox, first, count));
    if (count > 0 && n == 0) {
        fill_messages(outbox, &headers, first, count);
        n = send_filled(outbox, fd, &headers, count, flags);
        free(headers.allocated);
    }
    unlock(&outbox->busy);
    return n;
}

/* Messages of one piece each: in a row at `data`, or each where `bases` says. Those beyond `size_count` have the last one's
   size. */
struct piece_list {
    char *data;
    char **bases;
    const int *sizes;
    int size_count;
};

static void fill_piece_list(struct headers *headers, const struct piece_list *list, int count)
{
    char *data = list->data;
    int i;

    for (i = 0; i < count; i++) {
        struct iovec *iov = headers->iov + i;

        iov->iov_len = (size_t)list->sizes[i < list->size_count ? i : list->size_count - 1];
        iov->iov_base = list->bases != NULL ? list->bases[i] : data;
        if (list->bases == NULL)
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
    int n = try_lock(&outbox->busy);
    int i;

    if (n < 0)
        return n;
    n = -LOWSOCK_MOVED;
    if (outbox->next == next) {
        for (i = 0; i < count; i++)
            fill_name_and_control(outbox, &headers->messages[i].msg_hdr, first + i);
        n = send_filled(outbox, fd, headers, count, flags);
    }
    unlock(&outbox->busy);
    return n;
}

static long long send_piece_list(struct lowsock_outbox *outbox, long long next, int first, int count,
                                 const struct piece_list *list, char *name, int name_size, int fd, int flags)
{
    union stack_headers stack;
    struct headers headers;
    long long partial = 0;
    int n;

    if (count <= 0 || list->size_count <= 0)
        return -EINVAL;
    n = prepare_headers(&headers, NULL, &stack, (size_t)count, (size_t)count);
    if (n < 0)
        return n;
    fill_piece_list(&headers, list, count);
    fill_name(&headers, name, name_size, count);
    if (outbox != NULL)
        n = send_next(outbox, next, first, &headers, count, fd, flags);
    else
        n = send_whole(fd, headers.messages, count, flags, &partial);
    free(headers.allocated);
    return n < 0 ? n : n + partial * (LOWSOCK_COUNT + 1LL);
}

/* Sizes beyond `size_count` are the last one's. Answers how many went whole and, times LOWSOCK_COUNT + 1, the bytes of the next
   that went. With an outbox, these are its messages from number `next` on, the first of which is `first` in the columns: its
   cursor moves, and tells the bytes. Then the answer may be -LOWSOCK_BUSY or, if another message is next, -LOWSOCK_MOVED. */
long long lowsock_send_joined(struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
                              char *name, int name_size, int fd, int flags, char *data)
{
    struct piece_list list = {data, NULL, sizes, size_count};

    return send_piece_list(outbox, next, first, count, &list, name, name_size, fd, flags);
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
    struct piece_list list = {NULL, pieces, sizes, size_count};

    if (count > LOWSOCK_PIECES)
        return -EINVAL;
    return send_piece_list(outbox, next, first, count, &list, name, name_size, fd, flags);
}

/* The cursor never goes back. */
long long lowsock_outbox_skip(struct lowsock_outbox *outbox, long long next, int whole)
{
    long long n = try_lock(&outbox->busy);

    if (n < 0)
        return n;
    if (whole && outbox->partial > 0)
        n = outbox->partial;
    else if (outbox->next < next) {
        outbox->next = next;
        outbox->partial = 0;
    }
    unlock(&outbox->busy);
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
