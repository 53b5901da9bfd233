/* SPDX-License-Identifier: MIT */
/*
 * What Python calls: a section for each file, a line for each function; the definition in that file says more. cffi reads
 * this header too: no directives, no includes.
 *
 *   queries.c         sizes, options, names, the out-of-band mark
 *   receive.c         one message received, into a reply
 *   send.c            one message sent
 *   owned.c           descriptors in slots
 *   peer.c            the peer of an AF_UNIX socket
 *   batch_send.c      sendmmsg(2), from an outbox
 *   batch_receive.c   recvmmsg(2), into an inbox
 *   udp_send.c        datagrams sent in bulk
 *   udp_receive.c     datagrams received in bulk, into an arrival or a burst
 *
 * Every function answers with a count, or -errno. Python owns the memory that the structures point to.
 */

/* ==== queries.c: sizes, options, names, the out-of-band mark ==== */

/* CMSG_LEN of cmsg(3). */
long long lowsock_cmsg_len(size_t length);
/* CMSG_SPACE of cmsg(3). */
long long lowsock_cmsg_space(size_t length);
/* 1 if the stream is at the out-of-band mark, else 0: sockatmark(3). */
int lowsock_sockatmark(int fd);
/* shutdown(2). */
int lowsock_shutdown(int fd, int how);
/* The value of an option that is an int. */
int lowsock_option(int fd, int level, int option);
/* Sets an option that is an int. */
int lowsock_set_option(int fd, int level, int option, int value);
/* Sets an option to `size` bytes. */
int lowsock_write_option(int fd, int level, int option, char *value, int size);
/* Reads an option of up to `size` bytes; answers its length. */
int lowsock_read_option(int fd, int level, int option, char *value, int size);
/* The socket's address family. */
int lowsock_family(int fd);
/* if_nametoindex(3), which PyPy's socket module lacks. */
int lowsock_interface_index(char *name);
/* if_indextoname(3); `name` has LOWSOCK_NAME bytes. Answers the name's length. */
int lowsock_interface_name(int index, char *name);

/* ==== receive.c: one message received ====
   An answer of 0 and above: so many bytes of data, and nothing else. LOWSOCK_CACHED + n: n bytes of data from the IPv4 source
   in `cached_source`, and nothing else. -(LOWSOCK_MORE + n): the first n numbers of `info` tell what came. */

enum { LOWSOCK_MORE = 4096, LOWSOCK_INFO = 4, LOWSOCK_ROW = 4, LOWSOCK_NAME = 256, LOWSOCK_CACHED = 1 << 30 };

/* Where one receive puts what the kernel delivers. */
struct lowsock_reply {
    char *data;              /* data_size bytes */
    char *control;           /* control_size bytes, aligned for struct cmsghdr */
    long long *info;         /* LOWSOCK_INFO numbers: bytes of data, msg_flags, IPv4 source as address << 16 | port
                                (-1: none, -2: see `name`), descriptors in fds;
                                then LOWSOCK_ROW for each control message: level, type, start and end in control */
    int *fds;                /* room for control_size / sizeof(int): all descriptors that came, SCM_RIGHTS first */
    long long data_size;
    long long control_size;
    int fd_count;            /* descriptors in fds that nobody has taken over yet */
    int rights;              /* how many of fds came by SCM_RIGHTS */
    int name_size;           /* bytes of name that the kernel filled */
    char *name;              /* LOWSOCK_NAME bytes: a struct sockaddr */
    char host[16];           /* an IPv4 source as text */
    int fd;                  /* of the last lowsock_recv */
    long long size;          /* and its size: what lowsock_recv_again goes by */
    long long cached_source; /* the IPv4 source whose address tuple Python has cached; -1: none */
};

/* A receive without flags and without room for control messages. */
int lowsock_recv(struct lowsock_reply *reply, int fd, long long size);
/* The same descriptor and size as the last time: cffi passes one argument more cheaply than three. */
int lowsock_recv_again(struct lowsock_reply *reply);
/* The same into the caller's buffers. */
int lowsock_recv_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count);
/* recvmsg(2). */
int lowsock_recvmsg(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags);
/* recvmsg(2) into the caller's buffers. */
int lowsock_recvmsg_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count,
                         long long control_size, int flags);
/* recvmsg(2) that keeps `most` descriptors of SCM_RIGHTS and closes all others. */
int lowsock_recv_fds(struct lowsock_reply *reply, int fd, long long size, long long control_size, int most, int flags);
/* Reads `size` bytes of `control` as if a receive had just filled them. */
int lowsock_parse(struct lowsock_reply *reply, long long size);
/* Closes the descriptors that nobody has taken over. */
void lowsock_reply_close(struct lowsock_reply *reply);

/* ==== send.c: one message sent ====
   `table` holds level, type and length of each of `rows` control messages; `payload` holds their payloads in a row. */

/* A send without address, flags and control messages. */
int lowsock_send(int fd, char *data, size_t size);
/* The same from several buffers. */
long long lowsock_send_gathered(int fd, char **bases, size_t *sizes, size_t count);
/* sendto(2). */
long long lowsock_sendto(int fd, char *data, size_t size, char *name, int name_size, int flags);
/* The same if the socket is of the family that the name was made for; else -EINTR, and nothing is sent. */
long long lowsock_sendto_family(int fd, int family, char *data, size_t size, char *name, int name_size, int flags);
/* sendmsg(2) of one buffer. */
long long lowsock_sendmsg(int fd, char *data, size_t size, char *payload, int *table, size_t rows,
                          char *name, int name_size, int flags);
/* sendmsg(2) of several buffers. */
long long lowsock_sendmsg_from(int fd, char **bases, size_t *sizes, size_t count, char *payload, int *table, size_t rows,
                               char *name, int name_size, int flags);
/* sendmsg(2) of one buffer and one control message. Where a family is given and the socket is of another: -EINTR, not sent. */
long long lowsock_send_one(int fd, char *data, size_t size, int level, int type, char *payload, int length,
                           char *name, int name_size, int flags, int family);
/* sendmsg(2) of one buffer and copies of descriptors; `family` as above. */
int lowsock_send_fds(int fd, char *data, size_t size, int *fds, size_t count, int flags, int family);

/* ==== owned.c: descriptors in slots ==== */

/* Why a slot is empty. */
enum { LOWSOCK_TAKEN = -1, LOWSOCK_CLOSED = -2, LOWSOCK_PEEKED = -3 };

/* Threads empty a slot atomically: whoever moves a number out of it has it alone. All zeros and a size to begin with. */
struct lowsock_owned {
    int size;     /* slots that there is room for */
    int count;    /* slots in use */
    int pidfd;    /* the slot of the pidfd that came, counted from 1; 0: none came */
    int disarmed; /* the numbers belong to somebody else: nothing closes them */
    int closed;   /* a slot that is filled from now on is closed again */
    int leaked;   /* descriptors that the garbage collector had to close */
    int first;    /* of slots that others moved into: where these began in the others */
    int fds[];    /* a descriptor, or why there is none */
};

/* lowsock_recvmsg that moves the descriptors that came into slots. */
int lowsock_recv_rights(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags,
                        struct lowsock_owned *owned);
/* Puts the descriptor that is an option's value into a slot; answers 0. */
int lowsock_owned_option(int fd, int level, int option, struct lowsock_owned *owned);
/* Moves `count` slots, from `first` on, to the beginning of others. */
void lowsock_owned_take(struct lowsock_owned *from, int first, int count, struct lowsock_owned *to);
/* Moves the first that is left to the beginning of others; answers its slot, or -1. */
int lowsock_owned_take_first(struct lowsock_owned *from, struct lowsock_owned *to);
/* Undoes either; closes what it puts into slots that were closed since. */
void lowsock_owned_put_back(struct lowsock_owned *to, struct lowsock_owned *from);
/* Closes what is in the slots; answers how many. Any thread may call it at any time. */
int lowsock_owned_close(struct lowsock_owned *owned);
/* The same for the garbage collector, which counts in `leaked`. */
void lowsock_owned_collect(struct lowsock_owned *owned);
/* The index of the first number that is no open descriptor; `count`: none. */
int lowsock_first_closed(int *fds, int count);

/* ==== peer.c: the peer of an AF_UNIX socket ==== */

/* Writes process (0: unknown), user and group to `ids`. */
int lowsock_peer(int fd, long long *ids);

/* ==== batches: what both directions share ==== */

enum {
    LOWSOCK_BATCH = 1024,  /* messages that one sendmmsg(2) takes at most */
    LOWSOCK_PIECES = 64,   /* messages that lowsock_send_pieces takes at most, each by a pointer */
    LOWSOCK_BUSY = 4095,   /* -LOWSOCK_BUSY: another call with this batch is under way; no errno of a kernel */
    LOWSOCK_MOVED = 4094,  /* -LOWSOCK_MOVED: the cursor is elsewhere by now */
    LOWSOCK_ALIGNED = 16,  /* bytes that control buffers in a row are aligned to */
    LOWSOCK_SOCKADDR = 128 /* bytes of an inbox for each address: a struct sockaddr_storage */
};

/* ==== batch_send.c: sendmmsg(2) ==== */

/* Messages to be sent. `next` and `partial` are the cursor, which C moves by what the kernel took. */
struct lowsock_outbox {
    char *data;
    char **pieces;            /* NULL: each message is one piece of data */
    size_t *piece_sizes;
    char *names;
    char *control;            /* complete control buffers, each aligned for struct cmsghdr */
    long long *starts;        /* a column: where a message begins in data (or its first piece) */
    long long *sizes;         /* and how many bytes (or pieces) it has */
    long long *name_starts;   /* where its address begins in names */
    long long *name_sizes;    /* NULL: no message has one */
    long long *control_starts;
    long long *control_sizes; /* NULL: no message has any */
    long long next;           /* the first message that the kernel has not taken; a SendBatch counts all it ever had */
    long long partial;        /* bytes of it that a stream has taken */
    int busy;
};

/* Sends messages `next` to `count` - 1, LOWSOCK_BATCH at most; answers how many went whole. */
int lowsock_sendmmsg(struct lowsock_outbox *outbox, int fd, int count, int flags);
/* Sends messages of one piece each, in a row at `data`. */
long long lowsock_send_joined(struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
                              char *name, int name_size, int fd, int flags, char *data);
/* The same with a pointer to each of `count` pieces: a pointer into a Python object is good for one call. */
long long lowsock_send_pieces(
    struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
    char *name, int name_size, int fd, int flags,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *);
/* Moves the cursor on to message `next`; with `whole`, only if no part of a message was sent: else answers its bytes. */
long long lowsock_outbox_skip(struct lowsock_outbox *outbox, long long next, int whole);
/* Makes a control buffer of up to `space` bytes; answers how many it takes, or -ENOBUFS. */
long long lowsock_pack_control(char *control, long long space, char *payload, int *table, size_t rows);

/* ==== batch_receive.c: recvmmsg(2) ====
   An answer is the count of messages in the inbox, bits that say which columns are worth a look, and above
   LOWSOCK_FIRST_SHIFT the bytes of the first message. */

enum { LOWSOCK_COUNT = (1 << 24) - 1, LOWSOCK_SOURCES = 1 << 24, LOWSOCK_FLAGS = 1 << 25, LOWSOCK_CONTROL = 1 << 26 };
enum { LOWSOCK_SIZES = 1 << 27, LOWSOCK_FIRST_SHIFT = 32 };

/* Slots of one size, and columns with a number for each message. */
struct lowsock_inbox {
    char *data;           /* data_size bytes */
    char *control;        /* control_size bytes, aligned for struct cmsghdr */
    char *names;          /* LOWSOCK_SOCKADDR bytes each */
    char *headers;        /* lowsock_headers_size(slots) bytes */
    long long *sizes;     /* bytes of data */
    long long *flags;     /* msg_flags */
    long long *sources;   /* the address: an IPv4 one as address << 16 | port, any other as -1 - bytes in names */
    long long *controls;  /* bytes of control data whose descriptors nobody has taken over */
    long long data_size;
    long long control_size;
    int slots;
    int count;            /* messages in it */
    long long answer;     /* the last one that was a count */
    long long bufsize;    /* bytes of each slot for data */
    long long ancbufsize; /* bytes of each slot for control data */
    long long generation; /* counts how often its descriptors were closed */
    long long missed;     /* of those closed last, the numbers that were closed before: somebody took a loan for a gift */
    int busy;
};

/* The bytes that headers for `count` messages take. */
long long lowsock_headers_size(int count);
/* Receives up to `count` messages into slots `first` and on; waits for the first of them only. */
long long lowsock_recvmmsg(struct lowsock_inbox *inbox, int fd, int first, int count, long long bufsize, long long ancbufsize,
                           int flags);
/* For each of `count` slots: how many numbers follow, then LOWSOCK_ROW for each control message. */
long long lowsock_inbox_rows(struct lowsock_inbox *inbox, int first, int count, long long *rows, long long most);
/* Closes the descriptors that nobody has taken over, unless a call with the inbox is under way. */
void lowsock_inbox_close(struct lowsock_inbox *inbox);
/* Moves the descriptors of slot `i` to an owner: SCM_RIGHTS first, then the pidfd. Answers how many, or -LOWSOCK_BUSY if
   `generation` is over or a call is under way. */
int lowsock_inbox_move_out(struct lowsock_inbox *inbox, int i, long long generation, struct lowsock_owned *owned);
/* Undoes that if the generation lasts, else closes them; `control` is what the column had. */
void lowsock_inbox_take_back(struct lowsock_inbox *inbox, int i, long long generation, long long control,
                             struct lowsock_owned *owned);
/* Hands over the descriptors of all slots. */
void lowsock_inbox_forget(struct lowsock_inbox *inbox);

/* ==== udp_send.c: datagrams sent in bulk ==== */

/* Sends one buffer with a complete control buffer; answers the bytes sent. */
long long lowsock_udp_send(int fd, char *data, long long size, char *control, int control_size,
                           char *name, int name_size, int flags);
/* Sends datagrams of `segment` bytes, the last one of what is left, about LOWSOCK_BATCH at most; answers how many went. */
int lowsock_udp_send_each(int fd, char *data, long long size, long long segment, char *control, int control_size,
                          char *name, int name_size, int flags);
/* getpeername(2); `name` has LOWSOCK_SOCKADDR bytes. Answers its length. */
int lowsock_udp_peer(int fd, char *name);

/* ==== udp_receive.c: datagrams received in bulk ====
   An answer has the bytes of data, above LOWSOCK_SEGMENT_SHIFT the size of a segment (0: one datagram), and at
   LOWSOCK_CHANGED_SHIFT a bit: source, control messages or flags differ from the last time. */

enum {
    LOWSOCK_DATAGRAM = 65536,    /* bytes of room for data: a datagram, or a run that UDP_GRO joins, is never longer */
    LOWSOCK_CONTROL_ROOM = 1024, /* bytes of room for control messages */
    LOWSOCK_SEGMENT_SHIFT = 20,
    LOWSOCK_SIZE = (1 << 20) - 1,
    LOWSOCK_CHANGED_SHIFT = 40,
    LOWSOCK_BURST = 64,          /* datagrams, or runs of them, that one recvmmsg(2) brings at most */
    LOWSOCK_KEY = 128 + 1024     /* bytes of a source and of the control messages that tell how it came */
};

/* Where one receive of datagrams puts what came. */
struct lowsock_arrival {
    char *data;       /* LOWSOCK_DATAGRAM bytes */
    char *name;       /* LOWSOCK_SOCKADDR bytes */
    char *control;    /* LOWSOCK_CONTROL_ROOM bytes, aligned for struct cmsghdr */
    char *key;        /* LOWSOCK_KEY bytes: the source, then the control messages that tell how it came */
    int name_size;    /* bytes of the key that are the source */
    int control_size; /* bytes of the key that are control messages */
    int flags;        /* msg_flags, without MSG_DONTWAIT */
    long long time;   /* nanoseconds since the epoch; -1: unknown */
};

/* Where a burst goes: LOWSOCK_BURST slots of everything. */
struct lowsock_burst {
    char *data;         /* LOWSOCK_DATAGRAM bytes each */
    char *names;        /* LOWSOCK_SOCKADDR bytes each */
    char *control;      /* LOWSOCK_CONTROL_ROOM bytes each, aligned for struct cmsghdr */
    char *keys;         /* LOWSOCK_KEY bytes each: the arrival's key where it changed */
    int *changes;       /* three each: name_size, control_size and flags where they changed */
    long long *answers; /* as lowsock_udp_recv answers */
    long long *times;
};

/* Receives one datagram, or a run that UDP_GRO joined. */
long long lowsock_udp_recv(struct lowsock_arrival *arrival, int fd, long long size, int flags);
/* The same into the caller's buffers. */
long long lowsock_udp_recv_into(struct lowsock_arrival *arrival, int fd, char **bases, size_t *sizes, size_t count, int flags);
/* Receives a burst by recvmmsg(2); waits for the first only. */
long long lowsock_udp_recv_burst(struct lowsock_arrival *arrival, struct lowsock_burst *burst, int fd, int flags);
