/* SPDX-License-Identifier: MIT */
/* Batches of receives, from a kernel that says anything. Descriptors are numbers here: each that came is closed once. */
#include "fuzz.h"

enum { SLOTS = 5, DATA = 16 };

static struct {
    struct input input;
    unsigned failures;
    int failure;
    int asked;
} kernel;

static int closed_count;
static int marked_count;

static int refuses(void)
{
    if (kernel.failures == 0)
        return 0;
    kernel.failures--;
    errno = kernel.failure;
    return 1;
}

/* Fills in what comes by one message; returns its length. */
static unsigned bring(struct msghdr *header)
{
    struct input *input = &kernel.input;
    size_t name_size = (size_t)take(input, 1) * 2;
    size_t control_size = (size_t)take(input, 2);
    size_t filled = control_size < header->msg_controllen ? control_size : header->msg_controllen;
    unsigned length;

    EXPECT(header->msg_flags == 0 && header->msg_namelen == LOWSOCK_SOCKADDR && header->msg_iovlen == 1);
    EXPECT((header->msg_control == NULL) == (header->msg_controllen == 0));
    memset(header->msg_iov->iov_base, 1, header->msg_iov->iov_len);
    length = (unsigned)take(input, 4);
    header->msg_flags = (int)take(input, 4);
    copy(input, header->msg_name, name_size < LOWSOCK_SOCKADDR ? name_size : LOWSOCK_SOCKADDR);
    if (filled > 0)
        copy(input, header->msg_control, filled);
    header->msg_namelen = (socklen_t)name_size;
    header->msg_controllen = control_size;
    return length;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    unsigned n = 1 + (unsigned)take(&kernel.input, 1) % count;
    unsigned i;

    (void)fd;
    EXPECT(timeout == NULL && flags & MSG_WAITFORONE);
    kernel.asked = flags;
    if (refuses())
        return -1;
    for (i = 0; i < n; i++)
        messages[i].msg_len = bring(&messages[i].msg_hdr);
    return (int)n;
}

/* Where the other call is missing, and only there. */
ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
    (void)fd;
    (void)flags;
    EXPECT(kernel.failure == ENOSYS);
    return refuses() ? -1 : (ssize_t)bring(header);
}

int close(int fd)
{
    EXPECT(fd >= 0);
    closed_count++;
    return 0;
}

int fcntl(int fd, int command, ...)
{
    (void)fd;
    EXPECT(command == F_SETFD);
    marked_count++;
    return 0;
}

static struct lowsock_inbox new_inbox(size_t data_size, size_t control_size)
{
    struct lowsock_inbox inbox;

    memset(&inbox, 0, sizeof inbox);
    inbox.slots = SLOTS;
    inbox.data_size = (long long)data_size;
    inbox.control_size = (long long)control_size;
    inbox.data = exactly(data_size);
    inbox.control = exactly(control_size);
    inbox.names = exactly(SLOTS * LOWSOCK_SOCKADDR);
    inbox.headers = exactly((size_t)lowsock_headers_size(SLOTS));
    inbox.sizes = exactly(SLOTS * sizeof(long long));
    inbox.flags = exactly(SLOTS * sizeof(long long));
    inbox.sources = exactly(SLOTS * sizeof(long long));
    inbox.controls = exactly(SLOTS * sizeof(long long));
    return inbox;
}

static void drop_inbox(struct lowsock_inbox *inbox)
{
    free(inbox->data);
    free(inbox->control);
    free(inbox->names);
    free(inbox->headers);
    free(inbox->sizes);
    free(inbox->flags);
    free(inbox->sources);
    free(inbox->controls);
}

/* How many descriptors the rows of all slots tell of; every payload lies in its slot's control data. */
static int check_rows_of(struct lowsock_inbox *inbox)
{
    long long most = inbox->count * (1 + LOWSOCK_ROW * (inbox->ancbufsize / (long long)CMSG_LEN(0) + 1));
    long long *rows = exactly((size_t)most * sizeof *rows);
    long long *row = rows;
    long long numbers = lowsock_inbox_rows(inbox, 0, inbox->count, rows, most);
    int descriptors = 0;
    int i;

    EXPECT(numbers >= inbox->count && numbers <= most);
    EXPECT(lowsock_inbox_rows(inbox, 1, inbox->count, rows, most * 2) == -ENOBUFS);
    for (i = 0; i < inbox->count; i++) {
        long long *end = row + 1 + *row;
        long long stride = (inbox->ancbufsize + LOWSOCK_ALIGNED - 1) / LOWSOCK_ALIGNED * LOWSOCK_ALIGNED;

        for (row++; row < end; row += LOWSOCK_ROW) {
            long long at;

            EXPECT(row[2] <= row[3] && row[3] <= inbox->controls[i]);
            if (row[0] != SOL_SOCKET || (row[1] != SCM_RIGHTS && row[1] != LOWSOCK_SCM_PIDFD))
                continue;
            for (at = row[2]; at + (long long)sizeof(int) <= row[3]; at += (long long)sizeof(int)) {
                int fd;

                memcpy(&fd, inbox->control + i * stride + at, sizeof fd);
                descriptors += fd >= 0;
            }
        }
    }
    EXPECT(row == rows + numbers);
    free(rows);
    return descriptors;
}

static void check(struct lowsock_inbox *inbox)
{
    int descriptors;
    int i;

    for (i = 0; i < inbox->count; i++) {
        EXPECT(inbox->sizes[i] >= 0 && inbox->sizes[i] <= inbox->bufsize);
        EXPECT(inbox->controls[i] >= 0 && inbox->controls[i] <= inbox->ancbufsize);
        EXPECT(inbox->sources[i] >= -1 - LOWSOCK_SOCKADDR);
    }
    descriptors = inbox->count > 0 ? check_rows_of(inbox) : 0;
    closed_count = 0;
    lowsock_inbox_close(inbox);
    lowsock_inbox_close(inbox);
    EXPECT(closed_count == descriptors);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    long long room = (long long)take(&input, 2) % 256;
    long long stride = (room + LOWSOCK_ALIGNED - 1) / LOWSOCK_ALIGNED * LOWSOCK_ALIGNED;
    struct lowsock_inbox inbox = new_inbox(SLOTS * DATA, (size_t)(SLOTS * stride));
    int count = (int)take(&input, 1) % (SLOTS + 2);
    int flags = (int)take(&input, 4);
    long long wanted = DATA + (long long)(take(&input, 1) % 8 == 7);
    long long answer;

    kernel.failures = (unsigned)take(&input, 1) % 3;
    kernel.failure = take(&input, 1) % 2 ? EINVAL : 1 + (int)(take(&input, 2) % 4094);
    kernel.input = input;
    closed_count = marked_count = 0;
    answer = lowsock_recvmmsg(&inbox, -1, 0, count, wanted, room, flags);
    EXPECT(answer >= 0 ? (answer & LOWSOCK_COUNT) == inbox.count : inbox.count == 0);
    if (answer > 0 && inbox.count < count) /* and those that are waited for */
        (void)lowsock_recvmmsg(&inbox, -1, inbox.count, count - inbox.count, wanted, room, flags);
    EXPECT(closed_count == 0 && !inbox.busy);
    check(&inbox);
    drop_inbox(&inbox);
    return 0;
}
