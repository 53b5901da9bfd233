/* SPDX-License-Identifier: MIT */
/* The C side of the benchmarks of batches. Comes after loops.c, in one file for the compiler. */

enum { BATCH = 1024, SLOT = 2048 };

static struct mmsghdr batch[BATCH];
static struct iovec batch_iov[BATCH];
static struct sockaddr_storage batch_names[BATCH];

static void fill_batch(char *base, size_t size, int count, int names)
{
    int i;

    memset(batch, 0, (size_t)count * sizeof *batch);
    for (i = 0; i < count; i++) {
        batch_iov[i].iov_base = base + (size_t)i * size;
        batch_iov[i].iov_len = size;
        batch[i].msg_hdr.msg_iov = batch_iov + i;
        batch[i].msg_hdr.msg_iovlen = 1;
        batch[i].msg_hdr.msg_name = names ? batch_names + i : NULL;
        batch[i].msg_hdr.msg_namelen = names ? sizeof *batch_names : 0;
    }
}

int loop_batch(int from, int to, size_t size, int count, int n)
{
    static char out[BATCH * SLOT];
    static char in[BATCH * SLOT];
    int done = 0;

    while (n-- > 0 && done >= 0) {
        fill_batch(out, size, count, 0);
        done = sendmmsg(from, batch, (unsigned)count, 0);
        if (done < 0)
            break;
        fill_batch(in, SLOT, count, 1);
        done = recvmmsg(to, batch, (unsigned)count, MSG_WAITFORONE, NULL);
    }
    return done < 0 ? -errno : 0;
}
