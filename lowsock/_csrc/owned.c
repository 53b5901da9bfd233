/* SPDX-License-Identifier: MIT */
/* Descriptors in slots. Each moves in or out within one call: no Python exception comes between a number and its owner. */
#include "internal.h"
#include "lowsock.h"

/* ---- in ---- */

static void fill_slot(struct lowsock_owned *owned, int fd) { owned->fds[owned->count++] = fd; }

/* All slots but the last are for SCM_RIGHTS; the one after those that came is for the pidfd. */
static int has_room(const struct lowsock_owned *owned, int pidfd)
{
    return pidfd ? owned->pidfd == 0 && owned->count < owned->size : owned->count < owned->size - 1;
}

static void own_one(struct lowsock_reply *reply, struct lowsock_owned *owned, int fd, int pidfd, int peeked)
{
    int room = has_room(owned, pidfd);

    if (!room)
        reply->info[1] |= MSG_CTRUNC;
    if (!room || peeked)
        close(fd);
    if (!room)
        return;
    fill_slot(owned, peeked ? LOWSOCK_PEEKED : fd);
    if (pidfd)
        owned->pidfd = owned->count;
}

/* Moves what a receive has noted into the slots. A pidfd below zero is the kernel's -errno, and no descriptor. */
static void own(struct lowsock_reply *reply, struct lowsock_owned *owned, int peeked)
{
    int i;

    for (i = 0; i < reply->fd_count; i++)
        if (reply->fds[i] >= 0)
            own_one(reply, owned, reply->fds[i], i >= reply->rights, peeked);
    reply->fd_count = 0;
    reply->info[3] = 0;
}

static int brought_descriptors(const struct lowsock_reply *reply, const long long *row)
{
    int number;

    if (row[0] != SOL_SOCKET || row[1] != LOWSOCK_SCM_PIDFD)
        return row[0] == SOL_SOCKET && row[1] == SCM_RIGHTS;
    if (row[3] - row[2] < (long long)sizeof number)
        return 0;
    memcpy(&number, reply->control + row[2], sizeof number);
    return number >= 0;
}

/* Leaves the rows of messages that brought no descriptor; answers how many numbers info then holds. */
static int other_rows(const struct lowsock_reply *reply, int numbers)
{
    int to = LOWSOCK_INFO;
    int from;

    for (from = LOWSOCK_INFO; from < numbers; from += LOWSOCK_ROW) {
        if (brought_descriptors(reply, reply->info + from))
            continue;
        memmove(reply->info + to, reply->info + from, LOWSOCK_ROW * sizeof *reply->info);
        to += LOWSOCK_ROW;
    }
    return to;
}

/* Answers as lowsock_recv_fds does. Slots get SCM_RIGHTS first (all slots but one are for these), then the pidfd. The surplus
   is closed (MSG_CTRUNC tells), and so are all copies that a peek made. The rows in info are those of the messages that
   brought no descriptor. */
int lowsock_recv_rights(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags,
                        struct lowsock_owned *owned)
{
    int n = lowsock_recvmsg(reply, fd, size, control_size, flags);

    if (n >= 0)
        return lowsock_expand_answer(reply, n);
    if (n > -LOWSOCK_MORE)
        return n;
    own(reply, owned, flags & MSG_PEEK);
    return -(LOWSOCK_MORE + other_rows(reply, -n - LOWSOCK_MORE));
}

int lowsock_owned_option(int fd, int level, int option, struct lowsock_owned *owned)
{
    int value = lowsock_option(fd, level, option);

    if (value >= 0)
        fill_slot(owned, value);
    return value < 0 ? value : 0;
}

/* ---- out ---- */

/* The number in a slot, which then holds `mark`; of an empty slot, why it is empty. */
static int empty_slot(int *slot, int mark)
{
    int fd = __atomic_load_n(slot, __ATOMIC_SEQ_CST);

    while (fd >= 0 && !__atomic_compare_exchange_n(slot, &fd, mark, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ; /* fd is what the slot holds now */
    return fd;
}

/* A slot that was empty stays as it is, and the other slot gets the reason. */
void lowsock_owned_take(struct lowsock_owned *from, int first, int count, struct lowsock_owned *to)
{
    int i;

    to->first = first;
    for (i = 0; i < count; i++)
        fill_slot(to, empty_slot(from->fds + first + i, LOWSOCK_TAKEN));
}

int lowsock_owned_take_first(struct lowsock_owned *from, struct lowsock_owned *to)
{
    int i;

    for (i = 0; i < from->count; i++) {
        int fd = empty_slot(from->fds + i, LOWSOCK_TAKEN);

        if (fd < 0)
            continue;
        to->first = i;
        fill_slot(to, fd);
        return i;
    }
    return -1;
}

/* What was closed since stays closed: lowsock_owned_close sets `closed` first and empties the slots then; here a slot is
   filled first and `closed` read then. So one of the two sees the other. */
void lowsock_owned_put_back(struct lowsock_owned *to, struct lowsock_owned *from)
{
    int i;

    for (i = 0; i < from->count; i++) {
        int fd = empty_slot(from->fds + i, LOWSOCK_TAKEN);

        if (fd >= 0)
            __atomic_store_n(to->fds + from->first + i, fd, __ATOMIC_SEQ_CST);
    }
    if (__atomic_load_n(&to->closed, __ATOMIC_SEQ_CST))
        (void)lowsock_owned_close(to);
}

int lowsock_owned_close(struct lowsock_owned *owned)
{
    int closed = 0;
    int i;

    if (owned->disarmed)
        return 0;
    __atomic_store_n(&owned->closed, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < owned->count; i++) {
        int fd = empty_slot(owned->fds + i, LOWSOCK_CLOSED);

        if (fd < 0)
            continue;
        close(fd);
        closed++;
    }
    return closed;
}

void lowsock_owned_collect(struct lowsock_owned *owned) { owned->leaked += lowsock_owned_close(owned); }

/* ---- a check ---- */

int lowsock_first_closed(int *fds, int count)
{
    int i = 0;

    while (i < count && fcntl(fds[i], F_GETFD) >= 0)
        i++;
    return i;
}
