/* SPDX-License-Identifier: MIT */
/* Who is at the other end of an AF_UNIX socket. */
#include "internal.h"
#include "lowsock.h"

#if HAVE_UCRED
int lowsock_peer(int fd, long long *ids)
{
    struct ucred peer;
    int n;

    memset(&peer, 0, sizeof peer);
    n = lowsock_read_option(fd, SOL_SOCKET, SO_PEERCRED, (char *)&peer, sizeof peer);
    if (n < 0)
        return n;
    if (peer.uid == (uid_t)-1)
        return -ENOTCONN; /* what Linux says of a socket without a peer, and of families that know of none */
    ids[0] = peer.pid;
    ids[1] = peer.uid;
    ids[2] = peer.gid;
    return 0;
}
#elif HAVE_XUCRED
#ifndef SOL_LOCAL
#define SOL_LOCAL 0
#endif

#if defined(LOCAL_PEERPID) /* macOS */
static long long process(int fd, const struct xucred *peer)
{
    int pid = lowsock_option(fd, SOL_LOCAL, LOCAL_PEERPID);

    (void)peer;
    return pid < 0 ? 0 : pid;
}
#elif defined(__FreeBSD__) && __FreeBSD__ >= 13
static long long process(int fd, const struct xucred *peer)
{
    (void)fd;
    return peer->cr_pid;
}
#else
static long long process(int fd, const struct xucred *peer)
{
    (void)fd;
    (void)peer;
    return 0;
}
#endif

int lowsock_peer(int fd, long long *ids)
{
    struct xucred peer;
    int n;

    memset(&peer, 0, sizeof peer);
    n = lowsock_read_option(fd, SOL_LOCAL, LOCAL_PEERCRED, (char *)&peer, sizeof peer);
    if (n < 0)
        return n;
    if (peer.cr_version != XUCRED_VERSION || peer.cr_ngroups < 1)
        return -ENOTCONN;
    ids[0] = process(fd, &peer);
    ids[1] = peer.cr_uid;
    ids[2] = peer.cr_groups[0];
    return 0;
}
#else
int lowsock_peer(int fd, long long *ids)
{
    (void)fd;
    (void)ids;
    return -ENOSYS;
}
#endif
