/* SPDX-License-Identifier: MIT */
/* What receiving and sending share. */
#ifndef LOWSOCK_INTERNAL_H
#define LOWSOCK_INTERNAL_H

#include "system.h"

enum { STACK_IOVECS = 64 };

struct lowsock_reply;

/* Writes to info what an answer of 0 and above tells by itself; answers in the long form, -(LOWSOCK_MORE + n). */
int lowsock_expand_answer(struct lowsock_reply *reply, int n);

static inline int negative_errno(void) { return -errno; }

static inline struct iovec *fill_iovecs(struct iovec *stack, char **bases, const size_t *sizes, size_t count)
{
    struct iovec *iov = count <= STACK_IOVECS ? stack : calloc(count, sizeof *iov);
    size_t i;

    for (i = 0; iov != NULL && i < count; i++) {
        iov[i].iov_base = bases[i];
        iov[i].iov_len = sizes[i];
    }
    return iov;
}

static inline void drop_iovecs(struct iovec *stack, struct iovec *iov)
{
    if (iov != stack)
        free(iov);
}

#endif
