/* SPDX-License-Identifier: MIT */
/* lowsock_parse on any bytes, with any size said: the input is the control buffer. No descriptor is closed. */
#include "fuzz.h"

/* Parses `size` bytes of memory of which `said` are said to be filled. */
static void parse(const uint8_t *bytes, size_t size, long long said)
{
    struct lowsock_reply reply = new_reply(0, size);
    long long filled = said < 0 ? 0 : said < (long long)size ? said : (long long)size;
    size_t numbers;

    if (size > 0)
        memcpy(reply.control, bytes, size);
    numbers = numbers_in(&reply, lowsock_parse(&reply, said));
    check_rows(&reply, numbers, filled);
    EXPECT(reply.info[0] == 0 && reply.info[1] == 0 && reply.info[2] == -1);
    EXPECT(reply.rights == check_fds(&reply, numbers, SCM_RIGHTS, 0));
    EXPECT(reply.info[3] == check_fds(&reply, numbers, LOWSOCK_SCM_PIDFD, reply.rights));
    EXPECT(reply.fd_count == 0);
    EXPECT(size == 0 || memcmp(reply.control, bytes, size) == 0);
    lowsock_reply_close(&reply);
    drop_reply(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    size_t cut = size > 0 ? bytes[size - 1] % size : 0;

    parse(bytes, size, (long long)size);
    parse(bytes, size, (long long)cut);
    parse(bytes, cut, (long long)size);
    parse(bytes, size, LLONG_MAX);
    parse(bytes, size, LLONG_MIN);
    return 0;
}
