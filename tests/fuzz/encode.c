/* SPDX-License-Identifier: MIT */
/* Any control messages to be sent: what the kernel would see is those messages, zeros between them, and lowsock_parse
   reads them back. */
#include "fuzz.h"

enum { ROWS = 64, MOST = 2048, BUFFERS = 70 };

/* What is sent, and what the kernel of this run answers. */
static struct {
    int table[3 * ROWS];
    size_t rows;
    char *payload;
    size_t payload_size;
    size_t buffers;
    int name_size;
    ssize_t answer;
    int calls;
} sent;

static void check_read_back(const struct msghdr *header)
{
    struct lowsock_reply reply = new_reply(0, header->msg_controllen);
    const char *payload = sent.payload;
    size_t numbers;
    size_t i;

    if (header->msg_controllen > 0)
        memcpy(reply.control, header->msg_control, header->msg_controllen);
    numbers = numbers_in(&reply, lowsock_parse(&reply, reply.control_size));
    EXPECT(numbers == LOWSOCK_INFO + LOWSOCK_ROW * sent.rows);
    check_rows(&reply, numbers, reply.control_size);
    for (i = 0; i < sent.rows; i++) {
        const long long *row = reply.info + LOWSOCK_INFO + LOWSOCK_ROW * i;

        EXPECT(row[0] == sent.table[3 * i] && row[1] == sent.table[3 * i + 1]);
        EXPECT(row[3] - row[2] == sent.table[3 * i + 2]);
        EXPECT(memcmp(reply.control + row[2], payload, (size_t)(row[3] - row[2])) == 0);
        payload += row[3] - row[2];
    }
    drop_reply(&reply);
}

/* The walk of cmsg(3), by the C library: the same messages, and no byte of memory in the padding. */
static void check_walk(struct msghdr *header)
{
    struct cmsghdr *message = CMSG_FIRSTHDR(header);
    size_t i;

    for (i = 0; i < sent.rows; i++, message = CMSG_NXTHDR(header, message)) {
        const unsigned char *at;
        size_t length = (size_t)sent.table[3 * i + 2];

        EXPECT(message != NULL);
        EXPECT(message->cmsg_len == CMSG_LEN(length));
        for (at = CMSG_DATA(message) + length; at < (unsigned char *)message + CMSG_SPACE(length); at++)
            EXPECT(*at == 0);
    }
    EXPECT(message == NULL);
}

ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
    struct msghdr own = *header;

    (void)fd;
    (void)flags;
    sent.calls++;
    EXPECT((header->msg_control == NULL) == (header->msg_controllen == 0));
    EXPECT((header->msg_name == NULL) == (sent.name_size == 0));
    EXPECT(header->msg_namelen == (socklen_t)sent.name_size);
    EXPECT(header->msg_iovlen == sent.buffers);
    EXPECT(header->msg_flags == 0);
    check_read_back(header);
    check_walk(&own);
    errno = sent.answer < 0 ? (int)-sent.answer : 0;
    return sent.answer < 0 ? -1 : sent.answer;
}

static void fill(struct input *input)
{
    size_t i;

    sent.rows = (size_t)take(input, 1) % (ROWS + 1);
    sent.payload_size = 0;
    for (i = 0; i < sent.rows; i++) {
        sent.table[3 * i] = (int)take(input, 4);
        sent.table[3 * i + 1] = (int)take(input, 4);
        sent.table[3 * i + 2] = (int)(take(input, 2) % MOST);
        sent.payload_size += (size_t)sent.table[3 * i + 2];
    }
    sent.payload = exactly(sent.payload_size);
    copy(input, sent.payload, sent.payload_size);
}

/* One of the functions that send; `table` is of the exact size too. */
static long long send_all(unsigned which, int *table, char *name)
{
    char *bases[BUFFERS] = {NULL};
    size_t sizes[BUFFERS] = {0};

    if (which == 1 && sent.rows == 1)
        return lowsock_send_one(-1, NULL, 0, table[0], table[1], sent.payload, table[2], name, sent.name_size, 0, 0);
    if (which == 2)
        return lowsock_sendmsg(-1, NULL, 0, sent.payload, table, sent.rows, name, sent.name_size, 0);
    return lowsock_sendmsg_from(-1, bases, sizes, sent.buffers, sent.payload, table, sent.rows, name, sent.name_size, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    unsigned which = (unsigned)take(&input, 1) % 4;
    char name[LOWSOCK_NAME] = {0};
    int *table;

    sent.calls = 0;
    sent.name_size = (int)(take(&input, 1) % 2 * 16);
    sent.answer = take(&input, 1) % 2 ? (ssize_t)(take(&input, 4) & INT_MAX) : -1 - (ssize_t)(take(&input, 2) % 4095);
    sent.buffers = (size_t)take(&input, 1) % (BUFFERS + 1);
    fill(&input);
    if (which == 2 || (which == 1 && sent.rows == 1))
        sent.buffers = 1;
    table = exactly(3 * sent.rows * sizeof *table);
    memcpy(table, sent.table, 3 * sent.rows * sizeof *table);
    EXPECT(send_all(which, table, name) == sent.answer);
    EXPECT(sent.calls == 1);
    free(table);
    free(sent.payload);
    return 0;
}
