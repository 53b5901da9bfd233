/* SPDX-License-Identifier: MIT */
#include "internal.h"
#include "lowsock.h"
#include "control.h"

/* ---- control messages that came ---- */

/* Notes the descriptors of every message of `type` in reply->fds, whole ones only. */
static void note_descriptors(struct lowsock_reply *reply, long long size, int type)
{
    struct cursor cursor = {reply->control, reply->control + size};
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;
        int count = (int)(length / (long long)sizeof(int));

        memcpy(&header, cursor.at, sizeof header);
        if (carries(&header, type)) {
            memcpy(reply->fds + reply->fd_count, cursor.at + CMSG_LEN(0), (size_t)count * sizeof(int));
            reply->fd_count += count;
        }
        advance(&cursor, length);
    }
}

/* Fills info and fds from the first `size` bytes of control; answers how many numbers info holds. */
static int note_control(struct lowsock_reply *reply, long long size)
{
    reply->fd_count = 0;
    reply->rights = 0;
    if (size > 0) {
        note_descriptors(reply, size, SCM_RIGHTS);
        reply->rights = reply->fd_count;
        note_descriptors(reply, size, LOWSOCK_SCM_PIDFD);
    }
    reply->info[3] = reply->fd_count;
    return LOWSOCK_INFO + (size > 0 ? note_rows(reply->control, size, reply->info + LOWSOCK_INFO) : 0);
}

int lowsock_parse(struct lowsock_reply *reply, long long size)
{
    reply->info[0] = 0;
    reply->info[1] = 0;
    reply->info[2] = -1;
    size = note_control(reply, size < reply->control_size ? size : reply->control_size);
    reply->fd_count = 0; /* numbers in somebody's bytes are not ours to close */
    return -(LOWSOCK_MORE + (int)size);
}

static void close_down_to(struct lowsock_reply *reply, int most)
{
    while (reply->fd_count > 0 && reply->fd_count > most)
        close(reply->fds[--reply->fd_count]);
}

void lowsock_reply_close(struct lowsock_reply *reply) { close_down_to(reply, 0); }

static void set_close_on_exec(const struct lowsock_reply *reply)
{
    int i;

    for (i = 0; i < reply->fd_count; i++)
        (void)fcntl(reply->fds[i], F_SETFD, FD_CLOEXEC);
}

/* ---- receiving ---- */

static char *format_number(char *to, unsigned number)
{
    if (number >= 100)
        *to++ = (char)('0' + number / 100);
    if (number >= 10)
        *to++ = (char)('0' + number / 10 % 10);
    *to++ = (char)('0' + number % 10);
    return to;
}

/* The text of an IPv4 address is made here because nothing in Python makes it as cheaply. */
static void format_host(char *to, unsigned long address)
{
    int shift;

    for (shift = 24; shift >= 0; shift -= 8) {
        to = format_number(to, (unsigned)(address >> shift) & 255);
        *to++ = shift > 0 ? '.' : '\0';
    }
}

/* The answer to a receive of n bytes, and what info tells of it. The caller sees `msg_flags`. */
static int answer(struct lowsock_reply *reply, ssize_t n, const struct msghdr *header, int msg_flags, long long control_size)
{
    long long control = (long long)header->msg_controllen;
    long long from = inet_source(reply->name, header->msg_namelen);

    if (msg_flags == 0 && control == 0 && n < LOWSOCK_CACHED && (from == -1 || from == reply->cached_source))
        return from == -1 ? (int)n : LOWSOCK_CACHED + (int)n;
    reply->name_size = header->msg_namelen > LOWSOCK_NAME ? LOWSOCK_NAME : (int)header->msg_namelen;
    if (from >= 0)
        format_host(reply->host, (unsigned long)(from >> 16));
    reply->info[0] = n;
    reply->info[1] = msg_flags;
    reply->info[2] = from;
    return -(LOWSOCK_MORE + note_control(reply, control < control_size ? control : control_size));
}

/* Makes the call with a header of its own, so that nothing of an earlier call is left in it. */
static ssize_t call(struct lowsock_reply *reply, int fd, struct msghdr *header, struct iovec *iov, size_t count,
                    long long control_size, int flags)
{
    memset(header, 0, sizeof *header);
    header->msg_name = reply->name;
    header->msg_namelen = LOWSOCK_NAME;
    header->msg_iov = iov;
    header->msg_iovlen = count;
    header->msg_control = control_size > 0 ? reply->control : NULL;
    header->msg_controllen = (size_t)control_size;
    return recvmsg(fd, header, flags);
}

static int receive(struct lowsock_reply *reply, int fd, struct iovec *iov, size_t count, long long room,
                   long long control_size, int flags)
{
    int atomic = control_size > 0 ? MSG_CMSG_CLOEXEC & ~flags : 0;
    struct msghdr header;
    ssize_t n;
    int result;

    reply->fd_count = 0;
    n = call(reply, fd, &header, iov, count, control_size, flags | atomic);
    if (n < 0 && errno == EINVAL && atomic) { /* AF_PACKET refuses flags that it does not know */
        atomic = 0;
        n = call(reply, fd, &header, iov, count, control_size, flags);
    }
    if (n < 0)
        return negative_errno();
    if (n > room)
        n = room; /* MSG_TRUNC as an input flag gives the real length */
    /* What we or-ed in is not the caller's: MSG_CMSG_CLOEXEC shows if it was passed, MSG_DONTWAIT may be ours. */
    result = answer(reply, n, &header, header.msg_flags & ~(MSG_DONTWAIT | atomic), control_size);
    if (!atomic)
        set_close_on_exec(reply);
    return result;
}

static int fits(const struct lowsock_reply *reply, long long size, long long control_size)
{
    return size >= 0 && size <= reply->data_size && control_size >= 0 && control_size <= reply->control_size;
}

int lowsock_recv_again(struct lowsock_reply *reply)
{
    struct iovec iov;

    if (!fits(reply, reply->size, 0))
        return -ENOBUFS;
    iov.iov_base = reply->data;
    iov.iov_len = (size_t)reply->size;
    return receive(reply, reply->fd, &iov, 1, reply->size, 0, 0);
}

int lowsock_recv(struct lowsock_reply *reply, int fd, long long size)
{
    reply->fd = fd;
    reply->size = size;
    return lowsock_recv_again(reply);
}

int lowsock_recvmsg(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags)
{
    struct iovec iov;

    if (!fits(reply, size, control_size))
        return -ENOBUFS;
    if (flags & MSG_TRUNC)
        memset(reply->data, 0, (size_t)size); /* TCP then counts bytes that it does not copy */
    iov.iov_base = reply->data;
    iov.iov_len = (size_t)size;
    return receive(reply, fd, &iov, 1, size, control_size, flags);
}

int lowsock_expand_answer(struct lowsock_reply *reply, int n)
{
    reply->info[0] = n < LOWSOCK_CACHED ? n : n - LOWSOCK_CACHED;
    reply->info[1] = 0;
    reply->info[2] = n < LOWSOCK_CACHED ? -1 : reply->cached_source;
    reply->info[3] = 0;
    if (n >= LOWSOCK_CACHED)
        format_host(reply->host, (unsigned long)(reply->cached_source >> 16));
    return -(LOWSOCK_MORE + LOWSOCK_INFO);
}

/* Always answers in the long form. MSG_CTRUNC tells that more than `most` descriptors came. */
int lowsock_recv_fds(struct lowsock_reply *reply, int fd, long long size, long long control_size, int most, int flags)
{
    int n = lowsock_recvmsg(reply, fd, size, control_size, flags);

    if (n >= 0)
        return lowsock_expand_answer(reply, n);
    if (n > -LOWSOCK_MORE)
        return n;
    if (reply->rights > most)
        reply->info[1] |= MSG_CTRUNC;
    close_down_to(reply, reply->rights); /* a pidfd, from SO_PASSPIDFD, was not asked for */
    close_down_to(reply, most);
    reply->info[3] = reply->fd_count;
    return n;
}

/* ---- scattering ---- */

int lowsock_recvmsg_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count,
                         long long control_size, int flags)
{
    struct iovec stack[STACK_IOVECS];
    struct iovec *iov;
    long long room = 0;
    size_t i;
    int n;

    if (!fits(reply, 0, control_size))
        return -ENOBUFS;
    for (i = 0; i < count; i++)
        room += (long long)sizes[i];
    iov = fill_iovecs(stack, bases, sizes, count);
    if (iov == NULL)
        return -ENOMEM;
    n = receive(reply, fd, iov, count, room, control_size, flags);
    drop_iovecs(stack, iov);
    return n;
}

int lowsock_recv_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count)
{
    return lowsock_recvmsg_into(reply, fd, bases, sizes, count, 0, 0);
}
