/* SPDX-License-Identifier: MIT */
/* Control buffers, read and written: what single messages and batches share. Comes after lowsock.h, which has no guard. */
#ifndef LOWSOCK_CONTROL_H
#define LOWSOCK_CONTROL_H

#include "system.h"

/* ---- what came ---- */

struct cursor {
    char *at;
    char *end;
};

/* The payload's length of the header at the cursor, cut at the end of the buffer; -1 where no header is left.
   cmsg_len may be larger than what is there (truncation) or zero (macOS before 14). */
static inline long long payload_length(const struct cursor *cursor)
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

static inline void advance(struct cursor *cursor, long long length)
{
    long long space = (long long)CMSG_SPACE((size_t)length);
    long long left = cursor->end - cursor->at;

    cursor->at += space < left ? space : left;
}

static inline int carries(const struct cmsghdr *header, int type)
{
    return header->cmsg_level == SOL_SOCKET && header->cmsg_type == type;
}

/* A row of level, type, start and end for each message in `size` bytes; answers how many numbers that are. */
static inline int note_rows(char *control, long long size, long long *rows)
{
    struct cursor cursor = {control, control + size};
    long long *row = rows;
    long long length;

    while ((length = payload_length(&cursor)) >= 0) {
        struct cmsghdr header;

        memcpy(&header, cursor.at, sizeof header);
        row[0] = header.cmsg_level;
        row[1] = header.cmsg_type;
        row[2] = cursor.at - control + (long long)CMSG_LEN(0);
        row[3] = row[2] + length;
        row += LOWSOCK_ROW;
        advance(&cursor, length);
    }
    return (int)(row - rows);
}

/* An IPv4 source as address << 16 | port; -1 for none, -2 for any other. */
static inline long long inet_source(const char *name, socklen_t size)
{
    struct sockaddr_in inet;

    if (size < sizeof inet)
        return size == 0 ? -1 : -2;
    memcpy(&inet, name, sizeof inet);
    if (inet.sin_family != AF_INET)
        return -2;
    return (long long)ntohl(inet.sin_addr.s_addr) << 16 | ntohs(inet.sin_port);
}

/* ---- what is to be sent ---- */

static inline size_t control_space(const int *table, size_t rows)
{
    size_t space = 0;
    size_t i;

    for (i = 0; i < rows; i++)
        space += CMSG_SPACE((size_t)table[3 * i + 2]);
    return space;
}

/* Zeroed first: padding must tell nothing, and glibc's CMSG_NXTHDR reads the next length. */
static inline void fill_control(char *control, size_t space, const char *payload, const int *table, size_t rows)
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

#endif
