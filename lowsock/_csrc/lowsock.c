/* SPDX-License-Identifier: MIT */
#include "system.h"
#include "lowsock.h"

enum { STACK_IOVECS = 64, STACK_CONTROL = 1104 /* 253 descriptors and credentials */ };

static int negative_errno(void) { return -errno; }

/* ---- control messages that came ---- */

struct cursor {
    char *at;
    char *end;
};

/* The payload's length of the header at the cursor, cut at the end of the buffer; -1 where no header is left.
   cmsg_len may be larger than what is there (truncation) or zero (macOS before 14). */
static long long payload_length(const struct cursor *cursor)
{
    struct cmsghdr header;
    long long left = cursor->end - cursor->at;
    long long length;

    if (left < (long long)CMSG_LEN(0))
        return -1;
    memcpy(&header, cursor->at, sizeof header);
    if (header.cmsg_len < CMSG_LEN(0))
        return -1;
    if ((unsigned long long)header.cmsg_len > (unsigned long long)left)
        return left - (long long)CMSG_LEN(0);
    length = (long long)header.cmsg_len - (long long)CMSG_LEN(0);
    return length;
}

static void step(struct cursor *cursor, long long length)
{
    long long space = (long long)CMSG_SPACE((size_t)length);
    long long left = cursor->end - cursor->at;

    cursor->at += space < left ? space : left;
}

static int carries(const struct cmsghdr *header, int type)
{
    return header->cmsg_level == SOL_SOCKET && header->cmsg_type == type;
}

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
        step(&cursor, length);
    }
}

static int note_rows(struct lowsock_reply *reply, long long size)
{
    struct cursor cursor = {reply->control, reply->control + size};
    long long *row = reply->info + LOWSOCK_INFO;
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;

        memcpy(&header, cursor.at, sizeof header);
        row[0] = header.cmsg_level;
        row[1] = header.cmsg_type;
        row[2] = cursor.at - reply->control + (long long)CMSG_LEN(0);
        row[3] = row[2] + length;
        row += LOWSOCK_ROW;
        step(&cursor, length);
    }
    return (int)(row - reply->info);
}

/* Fills info and fds from the first `size` bytes of control; answers how many numbers info holds. */
static int note_control(struct lowsock_reply *reply, long long size)
{
    reply->fd_count = 0;
    reply->info[3] = 0;
    if (size <= 0)
        return LOWSOCK_INFO;
    note_descriptors(reply, size, SCM_RIGHTS);
    reply->rights = reply->fd_count;
    note_descriptors(reply, size, SCM_PIDFD);
    reply->info[3] = reply->fd_count;
    return note_rows(reply, size);
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

void lowsock_close(struct lowsock_reply *reply)
{
    while (reply->fd_count > 0)
        close(reply->fds[--reply->fd_count]);
}

int lowsock_keep_rights(struct lowsock_reply *reply, int most)
{
    if (most > reply->rights)
        most = reply->rights;
    while (reply->fd_count > most)
        close(reply->fds[--reply->fd_count]);
    return most;
}

static void set_close_on_exec(const struct lowsock_reply *reply)
{
    int i;

    for (i = 0; !HAVE_CMSG_CLOEXEC && i < reply->fd_count; i++)
        (void)fcntl(reply->fds[i], F_SETFD, FD_CLOEXEC);
}

/* ---- receiving ---- */

static long long source(const struct lowsock_reply *reply)
{
    struct sockaddr_in inet;

    if (reply->name_size == 0)
        return -1;
    if (reply->name_size < (int)sizeof inet)
        return -2;
    memcpy(&inet, reply->name, sizeof inet);
    if (inet.sin_family != AF_INET)
        return -2;
    return (long long)ntohl(inet.sin_addr.s_addr) << 16 | ntohs(inet.sin_port);
}

/* Makes the call with a header of its own, so that nothing of an earlier call is left in it. */
static int receive(struct lowsock_reply *reply, int fd, struct iovec *iov, size_t count, long long room,
                   long long control_size, int flags)
{
    struct msghdr header;
    ssize_t n;
    int shown;

    memset(&header, 0, sizeof header);
    header.msg_name = reply->name;
    header.msg_namelen = LOWSOCK_NAME;
    header.msg_iov = iov;
    header.msg_iovlen = count;
    header.msg_control = control_size > 0 ? reply->control : NULL;
    header.msg_controllen = (size_t)control_size;
    reply->fd_count = 0;
    n = recvmsg(fd, &header, flags | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return negative_errno();
    /* What we or-ed in is not the caller's: MSG_DONTWAIT may be ours, MSG_CMSG_CLOEXEC shows if it was passed. */
    shown = header.msg_flags & ~(MSG_DONTWAIT | (MSG_CMSG_CLOEXEC & ~flags));
    if (n > room)
        n = room; /* MSG_TRUNC as an input flag gives the real length */
    if (header.msg_namelen == 0 && shown == 0 && header.msg_controllen == 0)
        return (int)n;
    reply->name_size = header.msg_namelen > LOWSOCK_NAME ? LOWSOCK_NAME : (int)header.msg_namelen;
    reply->info[0] = n;
    reply->info[1] = shown;
    reply->info[2] = source(reply);
    n = note_control(reply, control_size < (long long)header.msg_controllen ? control_size : (long long)header.msg_controllen);
    set_close_on_exec(reply);
    return -(LOWSOCK_MORE + (int)n);
}

static int fits(const struct lowsock_reply *reply, long long size, long long control_size)
{
    return size >= 0 && size <= reply->data_size && control_size >= 0 && control_size <= reply->control_size;
}

int lowsock_recv(struct lowsock_reply *reply, int fd, long long size)
{
    struct iovec iov;

    if (!fits(reply, size, 0))
        return -ENOBUFS;
    iov.iov_base = reply->data;
    iov.iov_len = (size_t)size;
    return receive(reply, fd, &iov, 1, size, 0, 0);
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

/* ---- gathering and scattering ---- */

static struct iovec *fill_iovecs(struct iovec *stack, char **bases, const size_t *sizes, size_t count)
{
    struct iovec *iov = count <= STACK_IOVECS ? stack : calloc(count, sizeof *iov);
    size_t i;

    for (i = 0; iov != NULL && i < count; i++) {
        iov[i].iov_base = bases[i];
        iov[i].iov_len = sizes[i];
    }
    return iov;
}

static void drop_iovecs(struct iovec *stack, struct iovec *iov)
{
    if (iov != stack)
        free(iov);
}

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

/* ---- sending ---- */

/* One buffer without control messages is what sendto(2) sends: the kernel does the same and copies no header in. */
int lowsock_send(int fd, char *data, int size)
{
    ssize_t n = send(fd, data, (size_t)size, 0);

    return n < 0 ? negative_errno() : (int)n;
}

long long lowsock_sendto(int fd, char *data, size_t size, char *name, int name_size, int flags)
{
    ssize_t n = sendto(fd, data, size, flags, name_size > 0 ? (struct sockaddr *)name : NULL, (socklen_t)name_size);

    return n < 0 ? negative_errno() : n;
}

static size_t control_space(const int *table, size_t rows)
{
    size_t space = 0;
    size_t i;

    for (i = 0; i < rows; i++)
        space += CMSG_SPACE((size_t)table[3 * i + 2]);
    return space;
}

/* The buffer is zeroed before: padding is no secret, and glibc's CMSG_NXTHDR reads the next length. */
static void fill_control(char *control, const char *payload, const int *table, size_t rows)
{
    size_t i;

    for (i = 0; i < rows; i++) {
        size_t length = (size_t)table[3 * i + 2];
        struct cmsghdr header;

        memset(&header, 0, sizeof header);
        header.cmsg_level = table[3 * i];
        header.cmsg_type = table[3 * i + 1];
        header.cmsg_len = CMSG_LEN(length);
        memcpy(control, &header, sizeof header);
        memcpy(control + CMSG_LEN(0), payload, length);
        payload += length;
        control += CMSG_SPACE(length);
    }
}

static long long send_iovecs(int fd, struct iovec *iov, size_t count, const char *payload, const int *table, size_t rows,
                             char *name, int name_size, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[STACK_CONTROL];
    } stack;
    struct msghdr header;
    size_t space = control_space(table, rows);
    char *control = space <= sizeof stack.bytes ? stack.bytes : malloc(space);
    ssize_t n;

    if (control == NULL)
        return -ENOMEM;
    memset(control, 0, space);
    fill_control(control, payload, table, rows);
    memset(&header, 0, sizeof header);
    header.msg_name = name_size > 0 ? name : NULL;
    header.msg_namelen = (socklen_t)name_size;
    header.msg_iov = iov;
    header.msg_iovlen = count;
    header.msg_control = space > 0 ? control : NULL;
    header.msg_controllen = space;
    n = sendmsg(fd, &header, flags);
    if (n < 0)
        n = negative_errno();
    if (control != stack.bytes)
        free(control);
    return n;
}

long long lowsock_sendmsg(int fd, char *data, size_t size, char *payload, int *table, size_t rows,
                          char *name, int name_size, int flags)
{
    struct iovec iov;

    iov.iov_base = data;
    iov.iov_len = size;
    return send_iovecs(fd, &iov, 1, payload, table, rows, name, name_size, flags);
}

long long lowsock_sendmsg_from(int fd, char **bases, size_t *sizes, size_t count, char *payload, int *table, size_t rows,
                               char *name, int name_size, int flags)
{
    struct iovec stack[STACK_IOVECS];
    struct iovec *iov = fill_iovecs(stack, bases, sizes, count);
    long long n;

    if (iov == NULL)
        return -ENOMEM;
    n = send_iovecs(fd, iov, count, payload, table, rows, name, name_size, flags);
    drop_iovecs(stack, iov);
    return n;
}

/* ---- small things ---- */

long long lowsock_cmsg_len(size_t length) { return (long long)CMSG_LEN(length); }

long long lowsock_cmsg_space(size_t length) { return (long long)CMSG_SPACE(length); }

int lowsock_sockatmark(int fd)
{
    int n = sockatmark(fd);

    return n < 0 ? negative_errno() : n;
}

int lowsock_option(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof value;

    return getsockopt(fd, level, option, &value, &size) < 0 ? negative_errno() : value;
}

int lowsock_family(int fd)
{
#ifdef SO_DOMAIN
    return lowsock_option(fd, SOL_SOCKET, SO_DOMAIN);
#else
    struct sockaddr_storage name;
    socklen_t size = sizeof name;

    return getsockname(fd, (struct sockaddr *)&name, &size) < 0 ? negative_errno() : name.ss_family;
#endif
}
