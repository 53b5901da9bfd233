/* SPDX-License-Identifier: MIT */
/* What the harnesses share. The sources are compiled with their system calls renamed (see run), so that a harness can be
   the kernel. Memory is of exactly the size that Python gives it: AddressSanitizer sees one byte more. */
#ifndef LOWSOCK_FUZZ_H
#define LOWSOCK_FUZZ_H

#include "system.h"

#include <stdint.h>
#include <stdio.h>

#include "lowsock.h"

#define EXPECT(claim) \
    do { \
        if (!(claim)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            abort(); \
        } \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* ---- what the fuzzer gave ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

/* The next bytes as an unsigned number; the end of the input reads as zeros. */
static inline unsigned long long take(struct input *input, size_t bytes)
{
    unsigned long long number = 0;

    for (; bytes > 0 && input->left > 0; bytes--, input->left--)
        number = number << 8 | *input->at++;
    return number;
}

static inline void copy(struct input *input, void *to, size_t size)
{
    size_t there = size < input->left ? size : input->left;

    if (there > 0)
        memcpy(to, input->at, there);
    if (size > there)
        memset((char *)to + there, 0, size - there);
    input->at += there;
    input->left -= there;
}

/* ---- memory, as lowsock/_memory/recv_pool.py gives it ---- */

static inline void *exactly(size_t size)
{
    void *memory = malloc(size);

    EXPECT(memory != NULL);
    memset(memory, 0xa5, size);
    return memory;
}

static inline size_t room_for_info(size_t control_size)
{
    return LOWSOCK_INFO + LOWSOCK_ROW * (control_size / CMSG_LEN(0) + 1);
}

static inline size_t room_for_fds(size_t control_size) { return control_size / sizeof(int) + 1; }

static inline struct lowsock_reply new_reply(size_t data_size, size_t control_size)
{
    struct lowsock_reply reply;

    memset(&reply, 0, sizeof reply);
    reply.data = exactly(data_size);
    reply.control = exactly(control_size);
    reply.info = exactly(room_for_info(control_size) * sizeof *reply.info);
    reply.fds = exactly(room_for_fds(control_size) * sizeof *reply.fds);
    reply.name = exactly(LOWSOCK_NAME);
    reply.data_size = (long long)data_size;
    reply.control_size = (long long)control_size;
    reply.cached_source = -1;
    return reply;
}

static inline void drop_reply(struct lowsock_reply *reply)
{
    free(reply->data);
    free(reply->control);
    free(reply->info);
    free(reply->fds);
    free(reply->name);
}

/* ---- laws ---- */

/* How many numbers of info an answer tells of. */
static inline size_t numbers_in(const struct lowsock_reply *reply, int answer)
{
    int numbers = -answer - LOWSOCK_MORE;

    EXPECT(numbers >= LOWSOCK_INFO);
    EXPECT((numbers - LOWSOCK_INFO) % LOWSOCK_ROW == 0);
    EXPECT((size_t)numbers <= room_for_info((size_t)reply->control_size));
    return (size_t)numbers;
}

/* Each row is the header that stands where the one before it ends, its payload inside of `size` bytes, and as long as
   the header says if there is so much; behind the last one there is no header. */
static inline void check_rows(const struct lowsock_reply *reply, size_t numbers, long long size)
{
    long long at = 0;
    size_t i;
    struct cmsghdr header;

    for (i = LOWSOCK_INFO; i < numbers; i += LOWSOCK_ROW) {
        const long long *row = reply->info + i;
        long long length = row[3] - row[2];

        EXPECT(row[2] == at + (long long)CMSG_LEN(0));
        EXPECT(row[3] >= row[2]);
        EXPECT(row[3] <= size);
        memcpy(&header, reply->control + at, sizeof header);
        EXPECT(row[0] == header.cmsg_level);
        EXPECT(row[1] == header.cmsg_type);
        EXPECT(header.cmsg_len >= CMSG_LEN((size_t)length));
        EXPECT(header.cmsg_len == CMSG_LEN((size_t)length) || row[3] == size);
        at += (long long)CMSG_SPACE((size_t)length);
    }
    if (size - at >= (long long)CMSG_LEN(0)) {
        memcpy(&header, reply->control + at, sizeof header);
        EXPECT(header.cmsg_len < CMSG_LEN(0));
    }
}

/* The descriptors that rows of one type carry stand in fds from `count` on; answers how many there are then. */
static inline int check_fds(const struct lowsock_reply *reply, size_t numbers, int type, int count)
{
    size_t i;

    for (i = LOWSOCK_INFO; i < numbers; i += LOWSOCK_ROW) {
        const long long *row = reply->info + i;
        int carried = (int)((row[3] - row[2]) / (long long)sizeof(int));

        if (row[0] != SOL_SOCKET || row[1] != type)
            continue;
        EXPECT((size_t)(count + carried) <= room_for_fds((size_t)reply->control_size));
        EXPECT(memcmp(reply->fds + count, reply->control + row[2], (size_t)carried * sizeof(int)) == 0);
        count += carried;
    }
    return count;
}

#endif
