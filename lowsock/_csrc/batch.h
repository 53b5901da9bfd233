/* SPDX-License-Identifier: MIT */
/* What batches of sends and of receives share. Comes after lowsock.h, which has no guard. */
#ifndef LOWSOCK_BATCH_H
#define LOWSOCK_BATCH_H

#include "internal.h"

#if HAVE_MMSG
typedef struct mmsghdr message_header;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} message_header;
#endif

/* Headers of one call, and an iovec for each piece of data. */
struct headers {
    message_header *messages;
    struct iovec *iov;
    char *allocated; /* to be freed after the call */
};

enum { STACK_MESSAGES = 64 };
enum { HEADER = sizeof(message_header) + sizeof(struct iovec), STACK_HEADERS = STACK_MESSAGES * HEADER };

union stack_headers {
    message_header align;
    char bytes[STACK_HEADERS];
};

/* Puts the headers into `given` if there is any, on the caller's stack if that is enough, else into allocated memory. */
static inline int prepare_headers(struct headers *headers, char *given, union stack_headers *stack, size_t count,
                                  size_t pieces)
{
    size_t size = count * sizeof *headers->messages + pieces * sizeof *headers->iov;
    char *memory = given != NULL ? given : stack->bytes;

    headers->allocated = NULL;
    if (given == NULL && size > sizeof stack->bytes)
        memory = headers->allocated = malloc(size);
    if (memory == NULL)
        return -ENOMEM;
    memset(memory, 0, size);
    headers->messages = (message_header *)(void *)memory;
    headers->iov = (struct iovec *)(void *)(memory + count * sizeof *headers->messages);
    return 0;
}

static inline int receive_singly(int fd, message_header *messages, int count, int flags)
{
    int i;

    for (i = 0; i < count; i++) {
        ssize_t n = recvmsg(fd, &messages[i].msg_hdr, i > 0 ? flags | MSG_DONTWAIT : flags);

        if (n < 0)
            return i > 0 ? i : -1;
        messages[i].msg_len = (unsigned)n;
    }
    return count;
}

/* The kernel waits for the first message only: if it waited for all, a signal after the first would leave ERESTARTSYS as the
   socket's error (Linux 6.18), and its own timeout may last for ever. A sandbox may lack the call. */
static inline int receive_many(int fd, message_header *messages, int count, int flags)
{
#if HAVE_MMSG
    int n = recvmmsg(fd, messages, (unsigned)count, flags | MSG_WAITFORONE, NULL);

    if (n >= 0 || errno != ENOSYS)
        return n;
#endif
    return receive_singly(fd, messages, count, flags);
}

/* One thread or signal handler at a time is in a call with a batch. */
static inline int try_lock(int *busy) { return __sync_lock_test_and_set(busy, 1) ? -LOWSOCK_BUSY : 0; }

static inline void unlock(int *busy) { __sync_lock_release(busy); }

#endif
