/* SPDX-License-Identifier: MIT */
/* The headers that the names of constants.txt come from. The build puts the fallbacks behind this file.
   linux/icmp.h, linux/udp.h, linux/tcp.h and netpacket/packet.h are left out: they clash with those below. */
#ifndef LOWSOCK_CONSTANTS_H
#define LOWSOCK_CONSTANTS_H

#include "system.h"

#include <time.h> /* before linux/errqueue.h; SO_TIMESTAMP is made of sizeof(time_t) */
#include <netinet/in_systm.h> /* BSD and macOS want it before ip.h */
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <netinet/ip_icmp.h>
#include <netinet/icmp6.h>
#ifdef __linux__
#include <linux/types.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/if_alg.h>
#if __has_include(<linux/tls.h>) /* Linux 4.13 */
#include <linux/tls.h>
#endif
#endif

/* Where the numbers of socket options are those of asm-generic/socket.h. */
#if defined(__alpha__) || defined(__hppa__) || defined(__mips__) || defined(__sparc__)
#define LOWSOCK_GENERIC_SOCKET_H 0
#else
#define LOWSOCK_GENERIC_SOCKET_H 1
#endif

#endif
