/* SPDX-License-Identifier: MIT */
/* Batches of sends, to a kernel that takes any number of messages and of the bytes of the last one: each message goes once,
   in order, what a stream took of one is not sent again, and a control buffer is no longer than its room. */
#include "fuzz.h"

enum { MESSAGES = 70, PIECES = 3, SIZE = 5, ROWS = 4, PAYLOAD = 40 };

static struct {
    struct input input;
    unsigned char seen[MESSAGES * PIECES * SIZE]; /* how often each byte has gone */
    char *data;
    long long begun; /* bytes of the first message that had gone */
    int next;
    int failure;
    int calls;
    int singly; /* messages that went one by one since the last attempt to send several */
} kernel;

static size_t size_of(const struct msghdr *message)
{
    size_t size = 0;
    size_t i;

    for (i = 0; i < (size_t)message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    return size;
}

static void swallow(const struct msghdr *message, size_t size)
{
    size_t i;
    size_t k;

    for (i = 0; i < (size_t)message->msg_iovlen; i++)
        for (k = 0; k < message->msg_iov[i].iov_len && size > 0; k++, size--) {
            long long at = (char *)message->msg_iov[i].iov_base + k - kernel.data;

            EXPECT(at >= 0 && at < (long long)sizeof kernel.seen);
            EXPECT(++kernel.seen[at] == 1);
        }
}

static int refuses(void)
{
    kernel.calls++;
    if (take(&kernel.input, 1) % 4 != 3)
        return 0;
    kernel.failure = 1 + (int)(take(&kernel.input, 2) % 4000);
    errno = kernel.failure;
    return 1;
}

/* Message `i` of those that are offered; how many bytes of it are taken. */
static size_t accept_one(const struct msghdr *header, int i, int may_be_cut)
{
    size_t size = size_of(header);
    size_t part = may_be_cut && take(&kernel.input, 1) % 2 ? (size_t)take(&kernel.input, 1) % (size + 1) : size;

    EXPECT(header->msg_flags == 0);
    EXPECT((header->msg_control == NULL) == (header->msg_controllen == 0));
    EXPECT(kernel.begun == 0 || i > 0 || header->msg_control == NULL);
    if (i > 0 || kernel.begun == 0)
        EXPECT(header->msg_name == NULL || *(char *)header->msg_name == (char)(kernel.next + i));
    swallow(header, part);
    return part;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    unsigned n = 1 + (unsigned)take(&kernel.input, 1) % count;
    unsigned i;

    (void)fd;
    (void)flags;
    EXPECT(count <= LOWSOCK_BATCH);
    kernel.singly = 0;
    if (refuses())
        return -1;
    for (i = 0; i < n; i++) {
        EXPECT(messages[i].msg_len == 0);
        messages[i].msg_len = (unsigned)accept_one(&messages[i].msg_hdr, (int)i, i + 1 == n);
    }
    return (int)n;
}

/* Where the other call is missing, and only there. */
ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
    (void)fd;
    (void)flags;
    EXPECT(kernel.singly > 0 || kernel.failure == ENOSYS);
    return refuses() ? -1 : (ssize_t)accept_one(header, kernel.singly++, 1);
}

/* ---- what is sent ---- */

static struct lowsock_outbox new_outbox(struct input *input, int count, int pieces)
{
    struct lowsock_outbox outbox;
    long long at = 0;
    int i;

    memset(&outbox, 0, sizeof outbox);
    outbox.data = kernel.data = exactly(sizeof kernel.seen);
    outbox.starts = exactly(MESSAGES * sizeof(long long));
    outbox.sizes = exactly(MESSAGES * sizeof(long long));
    outbox.names = exactly(MESSAGES);
    outbox.name_starts = exactly(MESSAGES * sizeof(long long));
    outbox.name_sizes = exactly(MESSAGES * sizeof(long long));
    outbox.pieces = pieces ? exactly(MESSAGES * PIECES * sizeof(char *)) : NULL;
    outbox.piece_sizes = pieces ? exactly(MESSAGES * PIECES * sizeof(size_t)) : NULL;
    for (i = 0; i < MESSAGES * PIECES && pieces; i++) {
        outbox.pieces[i] = outbox.data + i * SIZE;
        outbox.piece_sizes[i] = (size_t)take(input, 1) % (SIZE + 1);
    }
    for (i = 0; i < count; i++) {
        outbox.starts[i] = pieces ? i * PIECES : at;
        outbox.sizes[i] = pieces ? (long long)take(input, 1) % (PIECES + 1) : (long long)take(input, 1) % (PIECES * SIZE + 1);
        at += outbox.sizes[i];
        outbox.names[i] = (char)i;
        outbox.name_starts[i] = i;
        outbox.name_sizes[i] = (long long)take(input, 1) % 2;
    }
    return outbox;
}

static void drop_outbox(struct lowsock_outbox *outbox)
{
    free(outbox->data);
    free(outbox->starts);
    free(outbox->sizes);
    free(outbox->names);
    free(outbox->name_starts);
    free(outbox->name_sizes);
    free(outbox->pieces);
    free(outbox->piece_sizes);
}

static long long bytes_of(const struct lowsock_outbox *outbox, int i)
{
    long long size = 0;
    long long k;

    if (outbox->pieces == NULL)
        return outbox->sizes[i];
    for (k = 0; k < outbox->sizes[i]; k++)
        size += (long long)outbox->piece_sizes[outbox->starts[i] + k];
    return size;
}

/* All that is before the cursor has gone, and nothing behind it. */
static void check_seen(const struct lowsock_outbox *outbox, int count)
{
    long long gone = outbox->partial;
    long long seen = 0;
    size_t k;
    int i;

    EXPECT(outbox->next >= 0 && outbox->next <= count && !outbox->busy);
    for (i = 0; i < outbox->next; i++)
        gone += bytes_of(outbox, i);
    for (k = 0; k < sizeof kernel.seen; k++)
        seen += kernel.seen[k];
    EXPECT(seen == gone);
    EXPECT(outbox->partial == 0 || outbox->partial < bytes_of(outbox, (int)outbox->next));
}

#define TAKE_8(at) sent[at], sent[at + 1], sent[at + 2], sent[at + 3], sent[at + 4], sent[at + 5], sent[at + 6], sent[at + 7]

/* The rest by the calls that have no columns of data: of messages that lie one behind the other. */
static long long send_held(struct lowsock_outbox *outbox, int count, int joined)
{
    int first = (int)outbox->next;
    int part = count - first < LOWSOCK_PIECES ? count - first : LOWSOCK_PIECES;
    int *sizes = exactly((size_t)part * sizeof *sizes);
    char *sent[LOWSOCK_PIECES];
    long long n;
    int i;

    for (i = 0; i < LOWSOCK_PIECES; i++)
        sent[i] = NULL;
    for (i = 0; i < part; i++) {
        sizes[i] = (int)outbox->sizes[first + i];
        sent[i] = outbox->data + outbox->starts[first + i];
    }
    EXPECT(lowsock_send_joined(outbox, first + 1, first, part, sizes, part, NULL, 0, -1, 0, sent[0]) == -LOWSOCK_MOVED);
    if (joined)
        n = lowsock_send_joined(outbox, first, first, part, sizes, part, NULL, 0, -1, 0, sent[0]);
    else
        n = lowsock_send_pieces(outbox, first, first, part, sizes, part, NULL, 0, -1, 0, TAKE_8(0), TAKE_8(8), TAKE_8(16),
                                TAKE_8(24), TAKE_8(32), TAKE_8(40), TAKE_8(48), TAKE_8(56));
    free(sizes);
    return n;
}

static void check_sends(struct input *input, int count, int way)
{
    struct lowsock_outbox outbox = new_outbox(input, count, way == 1);
    int turns;

    kernel.input = *input;
    memset(kernel.seen, 0, sizeof kernel.seen);
    for (turns = 0; turns < 20 && outbox.next < count; turns++) {
        long long before = outbox.next;
        long long n;

        kernel.begun = outbox.partial;
        kernel.next = (int)before;
        kernel.failure = 0;
        n = way < 2 ? lowsock_sendmmsg(&outbox, -1, count, 0) : send_held(&outbox, count, way == 2);
        EXPECT(n < 0 ? n == -kernel.failure && outbox.next == before : outbox.next == before + n);
        check_seen(&outbox, count);
    }
    EXPECT(lowsock_outbox_skip(&outbox, count, 1) == outbox.partial);
    EXPECT(lowsock_outbox_skip(&outbox, count, 0) == 0 && outbox.next == count && outbox.partial == 0);
    EXPECT(lowsock_sendmmsg(&outbox, -1, count, 0) == 0);
    drop_outbox(&outbox);
}

/* ---- control buffers ---- */

static void check_control(struct input *input)
{
    size_t rows = (size_t)take(input, 1) % (ROWS + 1);
    long long room = (long long)take(input, 1);
    int table[3 * ROWS + 1];
    char *payload = exactly(ROWS * PAYLOAD);
    char *control = exactly((size_t)room);
    long long need = 0;
    long long space;
    size_t i;

    for (i = 0; i < rows; i++) {
        table[3 * i] = (int)take(input, 2);
        table[3 * i + 1] = (int)take(input, 2);
        table[3 * i + 2] = (int)take(input, 1) % (PAYLOAD + 1);
        need += (long long)CMSG_SPACE((size_t)table[3 * i + 2]);
    }
    space = lowsock_pack_control(control, room, payload, table, rows);
    EXPECT(space == (need <= room ? need : -ENOBUFS));
    EXPECT(lowsock_pack_control(control, -1, payload, table, rows) == -ENOBUFS);
    free(control);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    int count = 1 + (int)take(&input, 1) % MESSAGES;
    int way = (int)take(&input, 1) % 4;

    check_control(&input);
    check_sends(&input, count, way);
    return 0;
}
