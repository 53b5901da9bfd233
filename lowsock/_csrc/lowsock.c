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
    reply->rights = 0;
    if (size > 0) {
        note_descriptors(reply, size, SCM_RIGHTS);
        reply->rights = reply->fd_count;
        note_descriptors(reply, size, SCM_PIDFD);
    }
    reply->info[3] = reply->fd_count;
    return size > 0 ? note_rows(reply, size) : LOWSOCK_INFO;
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

void lowsock_close(struct lowsock_reply *reply) { close_down_to(reply, 0); }

static void set_close_on_exec(const struct lowsock_reply *reply)
{
    int i;

    for (i = 0; i < reply->fd_count; i++)
        (void)fcntl(reply->fds[i], F_SETFD, FD_CLOEXEC);
}

/* ---- receiving ---- */

static char *put_number(char *to, unsigned number)
{
    if (number >= 100)
        *to++ = (char)('0' + number / 100);
    if (number >= 10)
        *to++ = (char)('0' + number / 10 % 10);
    *to++ = (char)('0' + number % 10);
    return to;
}

/* The text of an IPv4 address is made here because nothing in Python makes it as cheaply. */
static void put_host(char *to, unsigned long address)
{
    int shift;

    for (shift = 24; shift >= 0; shift -= 8) {
        to = put_number(to, (unsigned)(address >> shift) & 255);
        *to++ = shift > 0 ? '.' : '\0';
    }
}

/* What info says of the source. */
static long long source(const struct lowsock_reply *reply, socklen_t size)
{
    struct sockaddr_in inet;

    if (size < sizeof inet)
        return size == 0 ? -1 : -2;
    memcpy(&inet, reply->name, sizeof inet);
    if (inet.sin_family != AF_INET)
        return -2;
    return (long long)ntohl(inet.sin_addr.s_addr) << 16 | ntohs(inet.sin_port);
}

/* The answer to a receive of n bytes, and what info tells of it. `shown` are the flags that the caller sees. */
static int answer(struct lowsock_reply *reply, ssize_t n, const struct msghdr *header, int shown, long long control_size)
{
    long long control = (long long)header->msg_controllen;
    long long from = source(reply, header->msg_namelen);

    if (shown == 0 && control == 0 && n < LOWSOCK_SAME && (from == -1 || from == reply->same))
        return from == -1 ? (int)n : LOWSOCK_SAME + (int)n;
    reply->name_size = header->msg_namelen > LOWSOCK_NAME ? LOWSOCK_NAME : (int)header->msg_namelen;
    if (from >= 0)
        put_host(reply->host, (unsigned long)(from >> 16));
    reply->info[0] = n;
    reply->info[1] = shown;
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
    int told;

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
    told = answer(reply, n, &header, header.msg_flags & ~(MSG_DONTWAIT | atomic), control_size);
    if (!atomic)
        set_close_on_exec(reply);
    return told;
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

/* Tells in info what the shorter answers tell by themselves. */
static int spell_out(struct lowsock_reply *reply, int n)
{
    reply->info[0] = n < LOWSOCK_SAME ? n : n - LOWSOCK_SAME;
    reply->info[1] = 0;
    reply->info[2] = n < LOWSOCK_SAME ? -1 : reply->same;
    reply->info[3] = 0;
    if (n >= LOWSOCK_SAME)
        put_host(reply->host, (unsigned long)(reply->same >> 16));
    return -(LOWSOCK_MORE + LOWSOCK_INFO);
}

int lowsock_recv_fds(struct lowsock_reply *reply, int fd, long long size, long long control_size, int most, int flags)
{
    int n = lowsock_recvmsg(reply, fd, size, control_size, flags);

    if (n >= 0)
        return spell_out(reply, n);
    if (n > -LOWSOCK_MORE)
        return n;
    if (reply->rights > most)
        reply->info[1] |= MSG_CTRUNC;
    close_down_to(reply, reply->rights); /* a pidfd, from SO_PASSPIDFD, was not asked for */
    close_down_to(reply, most);
    reply->info[3] = reply->fd_count;
    return n;
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

int lowsock_recv_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count)
{
    return lowsock_recvmsg_into(reply, fd, bases, sizes, count, 0, 0);
}

/* ---- sending ---- */

/* One buffer without control messages is what sendto(2) sends: the kernel does the same and copies no header in. */
int lowsock_send(int fd, char *data, size_t size)
{
    ssize_t n = send(fd, data, size, 0); /* the kernel takes less than 2 GiB at a time */

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

/* Zeroed first: padding must tell nothing, and glibc's CMSG_NXTHDR reads the next length. */
static void fill_control(char *control, size_t space, const char *payload, const int *table, size_t rows)
{
    size_t i;

    memset(control, 0, space);
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
    if (rows > 0)
        fill_control(control, space, payload, table, rows);
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

long long lowsock_send_gathered(int fd, char **bases, size_t *sizes, size_t count)
{
    return lowsock_sendmsg_from(fd, bases, sizes, count, NULL, NULL, 0, NULL, 0, 0);
}

long long lowsock_send_one(int fd, char *data, size_t size, int level, int type, char *payload, int length,
                           char *name, int name_size, int flags)
{
    int table[3];

    table[0] = level;
    table[1] = type;
    table[2] = length;
    return lowsock_sendmsg(fd, data, size, payload, table, 1, name, name_size, flags);
}

int lowsock_send_fds(int fd, char *data, size_t size, int *fds, size_t count)
{
    int length = (int)(count * sizeof *fds);

    return (int)lowsock_send_one(fd, data, size, SOL_SOCKET, SCM_RIGHTS, (char *)fds, length, NULL, 0, 0);
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

    memset(&name, 0, sizeof name);
    return getsockname(fd, (struct sockaddr *)&name, &size) < 0 ? negative_errno() : name.ss_family;
#endif
}

#if HAVE_MMSG
int lowsock_probe_batches(int from, int to)
{
    char bytes[2] = {'1', '2'};
    struct iovec iov[2];
    struct mmsghdr batch[2];
    int i;
    int n;

    memset(batch, 0, sizeof batch);
    for (i = 0; i < 2; i++) {
        iov[i].iov_base = bytes + i;
        iov[i].iov_len = 1;
        batch[i].msg_hdr.msg_iov = iov + i;
        batch[i].msg_hdr.msg_iovlen = 1;
    }
    if (sendmmsg(from, batch, 2, 0) < 0)
        return negative_errno();
    n = recvmmsg(to, batch, 2, MSG_DONTWAIT, NULL);
    return n < 0 ? negative_errno() : n;
}
#else
int lowsock_probe_batches(int from, int to)
{
    (void)from;
    (void)to;
    return -ENOSYS;
}
#endif

int lowsock_interface_index(char *name)
{
    unsigned index = if_nametoindex(name);

    return index == 0 ? negative_errno() : (int)index;
}

int lowsock_interface_name(int index, char *name)
{
    return if_indextoname((unsigned)index, name) == NULL ? negative_errno() : (int)strlen(name);
}
