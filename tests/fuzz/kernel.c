/* SPDX-License-Identifier: MIT */
/* Every receive, from a kernel that says anything: errors, counts and lengths larger than the room, flags, any bytes of
   address and control data. Descriptors are numbers here: each that came is closed once, or left to the caller. */
#include "fuzz.h"

enum { DATA = 64, BUFFERS = 70 };

/* What the kernel of this run does. */
static struct {
    struct input input;
    unsigned failures;
    int failure;
    long long filled;
    int flags;
    int asked;
} kernel;

static int closed[4096];
static int closed_count;
static int marked_count;

ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
    struct input *input = &kernel.input;
    size_t name_size = (size_t)take(input, 2) % (2 * LOWSOCK_NAME);
    size_t control_size = (size_t)take(input, 2);
    ssize_t n = (ssize_t)(take(input, 4) & INT_MAX);

    (void)fd;
    kernel.asked = flags;
    if (kernel.failures > 0) {
        kernel.failures--;
        errno = kernel.failure;
        return -1;
    }
    EXPECT(header->msg_flags == 0 && header->msg_namelen == LOWSOCK_NAME);
    EXPECT((header->msg_control == NULL) == (header->msg_controllen == 0));
    copy(input, header->msg_name, name_size < header->msg_namelen ? name_size : header->msg_namelen);
    kernel.filled = (long long)(control_size < header->msg_controllen ? control_size : header->msg_controllen);
    if (kernel.filled > 0)
        copy(input, header->msg_control, (size_t)kernel.filled);
    header->msg_namelen = (socklen_t)name_size;
    header->msg_controllen = control_size;
    header->msg_flags = kernel.flags;
    return n;
}

int close(int fd)
{
    EXPECT(closed_count < (int)(sizeof closed / sizeof *closed));
    closed[closed_count++] = fd;
    errno = EBADF;
    return -1;
}

int fcntl(int fd, int command, ...)
{
    (void)fd;
    EXPECT(command == F_SETFD);
    marked_count++;
    return 0;
}

static int scatter(struct lowsock_reply *reply, size_t count, long long control_size, int flags)
{
    char *bases[BUFFERS];
    size_t sizes[BUFFERS];
    size_t i;

    for (i = 0; i < count; i++) {
        bases[i] = reply->data;
        sizes[i] = DATA / BUFFERS + i % 2;
    }
    return lowsock_recvmsg_into(reply, -1, bases, sizes, count, control_size, flags);
}

/* The descriptors from `kept` on have been closed, the last of them first. */
static void check_closed(const struct lowsock_reply *reply, int total, int kept)
{
    int i;

    EXPECT(closed_count == total - kept);
    for (i = 0; i < closed_count; i++)
        EXPECT(closed[i] == reply->fds[total - 1 - i]);
}

static void check_info(struct lowsock_reply *reply, int answer, int most)
{
    size_t numbers = numbers_in(reply, answer);
    int rights = check_fds(reply, numbers, SCM_RIGHTS, 0);
    int total = check_fds(reply, numbers, LOWSOCK_SCM_PIDFD, rights);
    int kept = most < 0 ? total : rights < most ? rights : most;

    check_rows(reply, numbers, numbers > LOWSOCK_INFO ? kernel.filled : 0);
    EXPECT(reply->info[0] >= 0 && reply->info[0] <= DATA);
    EXPECT(reply->info[2] >= -2 && reply->info[2] <= 0xffffffffffffLL);
    EXPECT(reply->name_size >= 0 && reply->name_size <= LOWSOCK_NAME);
    EXPECT(reply->info[2] < 0 || memchr(reply->host, 0, sizeof reply->host) != NULL);
    EXPECT(most < 0 || rights <= most || reply->info[1] & MSG_CTRUNC);
    EXPECT(reply->info[3] == kept);
    EXPECT(reply->fd_count == kept);
    EXPECT(marked_count == 0 || marked_count == total);
    EXPECT(marked_count == total || kernel.asked & MSG_CMSG_CLOEXEC);
    check_closed(reply, total, kept);
    lowsock_reply_close(reply);
    check_closed(reply, total, 0);
}

static void check(struct lowsock_reply *reply, int answer, int most)
{
    if (answer <= -LOWSOCK_MORE) {
        check_info(reply, answer, most);
        return;
    }
    EXPECT(reply->fd_count == 0 && closed_count == 0);
    EXPECT(answer < 0 ? answer == -kernel.failure || answer == -ENOBUFS : most < 0);
    EXPECT(answer < LOWSOCK_CACHED ? answer <= DATA : answer <= LOWSOCK_CACHED + DATA && reply->cached_source >= 0);
}

/* ---- descriptors that come to stand in slots ---- */

enum { SLOTS = 20 };

static struct lowsock_owned *new_slots(int size)
{
    struct lowsock_owned *owned = exactly(sizeof *owned + (size_t)size * sizeof *owned->fds);

    memset(owned, 0, sizeof *owned);
    owned->size = size;
    return owned;
}

/* How often a number is among those that came, or that were closed. */
static int times(const int *numbers, int count, int fd)
{
    int found = 0;

    while (count > 0)
        found += numbers[--count] == fd;
    return found;
}

static int times_below_zero(const int *numbers, int count)
{
    int found = 0;

    while (count > 0)
        found += numbers[--count] < 0;
    return found;
}

/* Every descriptor that came is in a slot or closed, and no other is. Those below zero are none. */
static void check_slots(const struct lowsock_reply *reply, const struct lowsock_owned *owned, int total)
{
    int i;

    EXPECT(reply->fd_count == 0 && owned->count <= owned->size && owned->pidfd <= owned->count);
    EXPECT(owned->count - (owned->pidfd > 0) < owned->size); /* the last one is for a pidfd */
    for (i = 0; i < total; i++) {
        int fd = reply->fds[i];
        int came = fd < 0 ? 0 : times(reply->fds, total, fd);

        EXPECT(came == times(closed, closed_count, fd) + (fd < 0 ? 0 : times(owned->fds, owned->count, fd)));
    }
    for (i = 0; i < closed_count; i++)
        EXPECT(times(reply->fds, total, closed[i]) > 0);
}

static void check_rights(struct lowsock_reply *reply, struct lowsock_owned *owned, int answer)
{
    size_t numbers;
    size_t i;
    int total;

    if (answer > -LOWSOCK_MORE) {
        EXPECT(answer < 0 && owned->count == 0 && closed_count == 0);
        return;
    }
    numbers = numbers_in(reply, answer);
    for (i = LOWSOCK_INFO; i < numbers; i += LOWSOCK_ROW)
        EXPECT(reply->info[i] != SOL_SOCKET || reply->info[i + 1] != SCM_RIGHTS);
    (void)numbers_in(reply, lowsock_parse(reply, kernel.filled)); /* notes the same descriptors once more */
    total = (int)reply->info[3];
    check_slots(reply, owned, total);
    EXPECT(!(kernel.asked & MSG_PEEK) || closed_count == total - times_below_zero(reply->fds, total));
    (void)lowsock_owned_close(owned);
    (void)lowsock_owned_close(owned);
    check_slots(reply, owned, total);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    unsigned which = (unsigned)take(&input, 1) % 6;
    size_t control_room = (size_t)take(&input, 2) % 2048;
    long long control_size = (long long)(control_room + take(&input, 1) % 2) - (long long)(take(&input, 1) % 2);
    int flags = (int)take(&input, 4);
    int most = (int)take(&input, 1);
    struct lowsock_reply reply = new_reply(DATA, control_room);
    struct lowsock_owned *owned = new_slots(1 + most % SLOTS);
    int answer;

    reply.cached_source = (long long)(take(&input, 6)) - 1;
    kernel.failures = (unsigned)take(&input, 1) % 3;
    kernel.failure = take(&input, 1) % 2 ? EINVAL : 1 + (int)(take(&input, 2) % 4095);
    kernel.flags = (int)take(&input, 4);
    kernel.filled = 0;
    kernel.input = input;
    closed_count = marked_count = 0;
    if (which == 0)
        answer = lowsock_recv(&reply, -1, most);
    else if (which == 1)
        answer = lowsock_recvmsg(&reply, -1, DATA, control_size, flags);
    else if (which == 2)
        answer = lowsock_recv_fds(&reply, -1, DATA, control_size, most, flags);
    else if (which == 5)
        answer = lowsock_recv_rights(&reply, -1, DATA, control_size, flags, owned);
    else
        answer = scatter(&reply, (size_t)most % (BUFFERS + 1), which == 3 ? control_size : 0, flags);
    if (which == 5)
        check_rights(&reply, owned, answer);
    else
        check(&reply, answer, which == 2 ? most : -1);
    free(owned);
    drop_reply(&reply);
    return 0;
}
