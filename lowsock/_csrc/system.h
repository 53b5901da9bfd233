/* SPDX-License-Identifier: MIT */
/* What the platform's headers give, and one HAVE_* decision for each thing that some platform lacks. */
#ifndef LOWSOCK_SYSTEM_H
#define LOWSOCK_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* Linux: sendmmsg, struct ucred, MSG_* beyond POSIX */
#endif
#ifndef __APPLE_USE_RFC_3542
#define __APPLE_USE_RFC_3542 1 /* macOS: IPV6_PKTINFO and its kin */
#endif

#ifdef _WIN32
#error "lowsock binds sendmsg(2) and recvmsg(2): Windows has neither"
#endif

#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <net/if.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/netlink.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#else
#include <net/if_dl.h> /* what IP_RECVIF brings */
#endif

/* A peer's credentials come as struct ucred (Linux) or struct xucred (FreeBSD, macOS). */
#ifdef __linux__
#define HAVE_UCRED 1
#else
#define HAVE_UCRED 0
#endif
#if !HAVE_UCRED && defined(LOCAL_PEERCRED)
#define HAVE_XUCRED 1
#include <sys/param.h>
#include <sys/ucred.h>
#else
#define HAVE_XUCRED 0
#endif

#ifdef LOWSOCK_NO_MMSG /* to try on Linux what stands in for them elsewhere */
#define HAVE_MMSG 0
#elif defined(__linux__)
#define HAVE_MMSG 1
#elif defined(__FreeBSD__) || defined(__NetBSD__)
#define HAVE_MMSG 1
#else
#define HAVE_MMSG 0
#endif

#ifdef __linux__
/* struct scm_ts_pktinfo (Linux 4.13) and struct sock_txtime (4.19), for headers that are older. */
struct lowsock_ts_pktinfo {
    unsigned if_index;
    unsigned pkt_length;
    unsigned reserved[2];
};
struct lowsock_txtime {
    int clockid;
    unsigned flags;
};
#endif

/* Without it (macOS), received descriptors are marked close-on-exec right after the call. */
#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif

/* A descriptor that comes in a message of its own (Linux 6.5); where there is none, no type matches. */
#if defined(SCM_PIDFD)
#define LOWSOCK_SCM_PIDFD SCM_PIDFD
#elif defined(__linux__)
#define LOWSOCK_SCM_PIDFD 0x04
#else
#define LOWSOCK_SCM_PIDFD -1
#endif

#endif
