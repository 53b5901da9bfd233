/* SPDX-License-Identifier: MIT */
/*
 * What Python calls. cffi reads this file too: no directives, no includes.
 *
 * Every function answers with a count, or -errno. A receive that brought more than
 * data (an address, flags, control messages) answers -(LOWSOCK_MORE + n): then the
 * first n numbers of `info` tell what came. One that brought data and the IPv4 source
 * that `same` names, and nothing else, answers with LOWSOCK_SAME + the bytes of data.
 */
enum { LOWSOCK_MORE = 4096, LOWSOCK_INFO = 4, LOWSOCK_ROW = 4, LOWSOCK_NAME = 256, LOWSOCK_SAME = 1 << 30 };

/* Where one receive puts what the kernel delivers. Python owns the memory that the pointers lead to. */
struct lowsock_reply {
    char *data;      /* data_size bytes */
    char *control;   /* control_size bytes, aligned for struct cmsghdr */
    long long *info; /* LOWSOCK_INFO numbers: bytes of data, msg_flags, IPv4 source as address << 16 | port
                        (-1: none, -2: look at name), descriptors in fds;
                        then LOWSOCK_ROW for each control message: level, type, start and end in control */
    int *fds;        /* room for control_size / sizeof(int): every descriptor that came, SCM_RIGHTS first */
    long long data_size;
    long long control_size;
    int fd_count;    /* descriptors in fds that nobody has taken over yet */
    int rights;      /* how many of fds came by SCM_RIGHTS */
    int name_size;   /* bytes of name that the kernel filled */
    char *name;      /* LOWSOCK_NAME bytes: a struct sockaddr */
    char host[16];   /* an IPv4 source as text */
    long long same;  /* an IPv4 source whose address tuple Python has at hand; -1: none */
};

/* Descriptors, each in a slot that a thread empties atomically: who has moved a number out of its slot has it alone.
   It begins as zeros and a size. */
enum { LOWSOCK_TAKEN = -1, LOWSOCK_CLOSED = -2, LOWSOCK_PEEKED = -3 };
struct lowsock_owned {
    int size;   /* slots that there is room for */
    int count;  /* slots in use */
    int pidfd;  /* the slot of the pidfd that came, counted from 1; 0: none did */
    int lent;   /* the numbers are somebody else's, and are not closed */
    int closed; /* nothing stays in a slot any more */
    int left;   /* descriptors that the collector had to close */
    int first;  /* where in the slots that they came from these begin */
    int fds[];  /* a descriptor, or why there is none */
};

/* The plain receives: no room for control messages, no flags. */
int lowsock_recv(struct lowsock_reply *reply, int fd, long long size);
int lowsock_recv_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count);
int lowsock_recvmsg(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags);
/* Always tells all in info. Keeps the first `most` of the descriptors that came by SCM_RIGHTS and closes all others (MSG_CTRUNC says so). */
int lowsock_recv_fds(struct lowsock_reply *reply, int fd, long long size, long long control_size, int most, int flags);
int lowsock_recvmsg_into(struct lowsock_reply *reply, int fd, char **bases, size_t *sizes, size_t count,
                         long long control_size, int flags);
/* Reads the first `size` bytes of `control` as if a receive had just filled them. */
int lowsock_parse(struct lowsock_reply *reply, long long size);
/* Closes the descriptors that nobody has taken over. */
void lowsock_close(struct lowsock_reply *reply);

/* Sends copies of descriptors beside one buffer. */
int lowsock_send_fds(int fd, char *data, size_t size, int *fds, size_t count, int flags);
/* The plain sends: no address, no flags, no control messages. */
int lowsock_send(int fd, char *data, size_t size);
long long lowsock_send_gathered(int fd, char **bases, size_t *sizes, size_t count);
long long lowsock_sendto(int fd, char *data, size_t size, char *name, int name_size, int flags);
/* One buffer and one control message. */
long long lowsock_send_one(int fd, char *data, size_t size, int level, int type, char *payload, int length,
                           char *name, int name_size, int flags);
/* `table` holds level, type and length of each of `rows` control messages, whose payloads stand in a row in `payload`. */
long long lowsock_sendmsg(int fd, char *data, size_t size, char *payload, int *table, size_t rows,
                          char *name, int name_size, int flags);
long long lowsock_sendmsg_from(int fd, char **bases, size_t *sizes, size_t count, char *payload, int *table, size_t rows,
                               char *name, int name_size, int flags);

long long lowsock_cmsg_len(size_t length);
long long lowsock_cmsg_space(size_t length);
int lowsock_sockatmark(int fd);
/* An int option's value, and setting it; any option's bytes, whose length is the answer. */
int lowsock_option(int fd, int level, int option);
int lowsock_set_option(int fd, int level, int option, int value);
int lowsock_write_option(int fd, int level, int option, char *value, int size);
int lowsock_read_option(int fd, int level, int option, char *value, int size);
/* Answers with the socket's address family. */
int lowsock_family(int fd);
/* As if_nametoindex(3); PyPy's socket module has neither. `name` is of LOWSOCK_NAME bytes; answers its length. */
int lowsock_interface_index(char *name);
int lowsock_interface_name(int index, char *name);

/* As lowsock_recv_fds, but the descriptors come to stand in slots, SCM_RIGHTS first (all but one of the slots are for them),
   then the pidfd; the surplus is closed (MSG_CTRUNC says so). A peek's copies are closed, all of them. The rows in info are
   those of the messages that brought no descriptor. */
int lowsock_recv_rights(struct lowsock_reply *reply, int fd, long long size, long long control_size, int flags,
                        struct lowsock_owned *owned);
/* An option whose value is a new descriptor, put into a slot; answers 0. */
int lowsock_own_option(int fd, int level, int option, struct lowsock_owned *owned);
/* Moves what is in `count` slots from `first` on to the other's beginning; what had none gets what its slot says. */
void lowsock_owned_take(struct lowsock_owned *from, int first, int count, struct lowsock_owned *to);
/* Undoes that; what has been closed meanwhile stays closed. */
void lowsock_owned_put_back(struct lowsock_owned *to, struct lowsock_owned *from);
/* Closes what is left in the slots, slot by slot; answers how many that were. Any thread may, at any time. */
int lowsock_owned_close(struct lowsock_owned *owned);
/* The same, as the collector does it: notes in `left` how many that were. */
void lowsock_owned_collect(struct lowsock_owned *owned);
/* Which of the numbers is the first that is no open descriptor; `count`: none. */
int lowsock_first_closed(int *fds, int count);
/* The peer of an AF_UNIX socket: process (0: not told), user, group. */
int lowsock_peer(int fd, long long *ids);
/* ---- batches ---- */

enum {
    LOWSOCK_BATCH = 1024,  /* messages that one sendmmsg(2) takes at most */
    LOWSOCK_PIECES = 64,   /* and those of which lowsock_send_pieces takes each by a pointer */
    LOWSOCK_BUSY = 4095,   /* -LOWSOCK_BUSY: somebody else is in a call with this batch; no errno of a kernel */
    LOWSOCK_MOVED = 4094,  /* -LOWSOCK_MOVED: the cursor is elsewhere by now */
    LOWSOCK_ALIGNED = 16,  /* bytes that control buffers in a row are aligned to */
    LOWSOCK_SOCKADDR = 128 /* bytes of an inbox for each address: a struct sockaddr_storage */
};
/* What the answer of lowsock_recvmmsg tells beside the count: which columns are worth a look. */
enum { LOWSOCK_COUNT = (1 << 24) - 1, LOWSOCK_SOURCES = 1 << 24, LOWSOCK_FLAGS = 1 << 25, LOWSOCK_CONTROL = 1 << 26 };
enum { LOWSOCK_SIZES = 1 << 27, LOWSOCK_FIRST_SHIFT = 32 /* above: the bytes of the first message */ };

/* Messages to be sent. Python owns the memory that the pointers lead to. `next` and `gone` are the cursor. */
struct lowsock_outbox {
    char *data;
    char **pieces;            /* NULL: a message is one piece, of data */
    size_t *piece_sizes;
    char *names;
    char *control;            /* complete control buffers, each aligned for struct cmsghdr */
    long long *starts;        /* a column: where a message begins in data (or its first piece) */
    long long *sizes;         /* and how many bytes (or pieces) it has */
    long long *name_starts;   /* the same of its address */
    long long *name_sizes;    /* NULL: no message has one */
    long long *control_starts;
    long long *control_sizes; /* NULL: no message has any */
    long long next;           /* the first message that the kernel has not taken; of a batch: of all that it ever got */
    long long gone;           /* bytes of it that a stream has taken */
    int busy;
};

/* Where a batch of receives puts what the kernel delivers: so many bytes for each message, and a number in each column. */
struct lowsock_inbox {
    char *data;           /* data_size bytes */
    char *control;        /* control_size bytes, aligned for struct cmsghdr */
    char *names;          /* LOWSOCK_SOCKADDR bytes each */
    char *headers;        /* lowsock_headers(slots) bytes */
    long long *sizes;     /* bytes of data */
    long long *flags;     /* msg_flags */
    long long *sources;   /* the address: an IPv4 one as address << 16 | port, any other as -1 - bytes in names */
    long long *controls;  /* bytes of control data that nobody has taken over */
    long long data_size;
    long long control_size;
    int slots;
    int count;            /* messages in it */
    long long answer;     /* the last one, if it was a count */
    long long size;       /* bytes of room for a message's data, and for its control data */
    long long room;
    long long turn;       /* how often its descriptors have been closed: by each receive that begins anew, by each close */
    int busy;
};

/* The memory that the headers of so many messages take. */
long long lowsock_headers(int count);
/* Sends messages `next` to `count` - 1, LOWSOCK_BATCH at most; answers how many went whole. */
int lowsock_sendmmsg(struct lowsock_outbox *outbox, int fd, int count, int flags);
/* The same with messages of one piece each, which are in a row at `data`. Those beyond `size_count` have the last one's size.
   Answers how many went whole and, times LOWSOCK_COUNT + 1, how many bytes of the next. With an outbox, they are those from
   number `next` on, the first of which is `first` in the columns; its cursor moves, instead of telling bytes, and the answer
   may be -LOWSOCK_BUSY or, if another message is next, -LOWSOCK_MOVED. */
long long lowsock_send_joined(struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
                              char *name, int name_size, int fd, int flags, char *data);
/* The same with a pointer for each, LOWSOCK_PIECES of them, of which `count` count: a pointer into a Python object is good for
   one call. */
long long lowsock_send_pieces(
    struct lowsock_outbox *outbox, long long next, int first, int count, int *sizes, int size_count,
    char *name, int name_size, int fd, int flags,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *,
    char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *, char *);
/* Takes the cursor on to number `next`, unless it is there already, or a part of a message has gone and `whole` is not 0:
   answers the bytes of that. */
long long lowsock_outbox_skip(struct lowsock_outbox *outbox, long long next, int whole);
/* Makes a control buffer of `space` bytes; answers how many it has taken, or -ENOBUFS. */
long long lowsock_pack_control(char *control, long long space, char *payload, int *table, size_t rows);
/* Receives up to `count` messages into slots `first` and on, and waits for the first of them only. Answers the count of
   all that are in the inbox then, with the bits. Descriptors that nobody has taken over are closed if `first` is 0. */
long long lowsock_recvmmsg(struct lowsock_inbox *inbox, int fd, int first, int count, long long size, long long room, int flags);
/* For each of `count` slots from `first` on: how many numbers follow, then LOWSOCK_ROW for each control message. Answers how
   many numbers that are, or -ENOBUFS. */
long long lowsock_inbox_rows(struct lowsock_inbox *inbox, int first, int count, long long *rows, long long most);
/* Closes the descriptors that nobody has taken over. Does nothing while another thread is in a call with the inbox: whoever
   received closes after its call what it then need not keep. */
void lowsock_inbox_close(struct lowsock_inbox *inbox);
/* Somebody has taken over those of slot `i`, as they were in turn `turn`; answers 0, or -LOWSOCK_BUSY: they are no more. */
int lowsock_inbox_hand_over(struct lowsock_inbox *inbox, int i, long long turn);
/* Undoes that, unless there has been another turn. `control` is what stood in the column. */
void lowsock_inbox_take_back(struct lowsock_inbox *inbox, int i, long long turn, long long control);
/* Says that all of them have been taken over. */
void lowsock_inbox_forget(struct lowsock_inbox *inbox);

/* ---- datagrams in bulk ---- */

enum {
    LOWSOCK_DATAGRAM = 65536,   /* bytes of room for data: no datagram, and no run of them that UDP_GRO makes, is longer */
    LOWSOCK_CONTROL_ROOM = 1024, /* bytes of room for control messages */
    LOWSOCK_CUT = 64,           /* datagrams that are handed to one sendmmsg(2) */
    LOWSOCK_SEGMENT_SHIFT = 20,
    LOWSOCK_SIZE = (1 << 20) - 1,
    LOWSOCK_CHANGED_SHIFT = 40, /* a bit of an answer: source, control messages or flags differ from the last time */
    LOWSOCK_BURST = 64,         /* datagrams, or runs of them, that one recvmmsg(2) brings at most */
    LOWSOCK_KEY = 128 + 1024    /* bytes of a source and its control messages, which are a cache's key */
};

/* Where one receive of datagrams puts what came. Python owns the memory that the pointers lead to. */
struct lowsock_arrival {
    char *data;     /* LOWSOCK_DATAGRAM bytes */
    char *name;     /* LOWSOCK_SOCKADDR bytes */
    char *control;  /* LOWSOCK_CONTROL_ROOM bytes, aligned for struct cmsghdr */
    char *key;      /* LOWSOCK_KEY bytes: the source, then the control messages that tell how they came */
    int name_size;
    int control_size;
    int flags;      /* msg_flags, without MSG_DONTWAIT */
    long long time; /* nanoseconds since the epoch; -1: not told */
};

/* Where a burst goes: LOWSOCK_BURST slots of everything. Python owns the memory that the pointers lead to. */
struct lowsock_burst {
    char *data;         /* LOWSOCK_DATAGRAM bytes each */
    char *names;        /* LOWSOCK_SOCKADDR bytes each */
    char *control;      /* LOWSOCK_CONTROL_ROOM bytes each, aligned for struct cmsghdr */
    char *keys;         /* LOWSOCK_KEY bytes each: that of the arrival where it has changed */
    int *changes;       /* three each: name_size, control_size and flags, where they have changed */
    long long *answers; /* as lowsock_udp_recv answers */
    long long *times;
};

/* Sends with a control buffer that was made before; answers the bytes sent. */
long long lowsock_udp_send(int fd, char *data, long long size, char *control, int control_size,
                           char *name, int name_size, int flags);
/* Sends datagrams of `segment` bytes, the last one of what is left, all with the same control buffer, about LOWSOCK_BATCH at
   most; answers how many went. */
int lowsock_udp_send_each(int fd, char *data, long long size, long long segment, char *control, int control_size,
                          char *name, int name_size, int flags);
/* Answers with the bytes of data, the size of a segment (0: one datagram) << LOWSOCK_SEGMENT_SHIFT, and 1 << LOWSOCK_CHANGED_SHIFT. */
long long lowsock_udp_recv(struct lowsock_arrival *arrival, int fd, long long size, int flags);
long long lowsock_udp_recv_into(struct lowsock_arrival *arrival, int fd, char **bases, size_t *sizes, size_t count, int flags);
/* Receives what is there, and waits for the first only. Answers how many came, and above LOWSOCK_SEGMENT_SHIFT their size,
   LOWSOCK_SIZE if it differs; or the count and 1 << LOWSOCK_CHANGED_SHIFT, if any is a run, or differs from the one
   before in source, control messages or flags. */
long long lowsock_udp_recv_burst(struct lowsock_arrival *arrival, struct lowsock_burst *burst, int fd, int flags);
/* As getpeername(2); `name` is of LOWSOCK_SOCKADDR bytes. Answers its length. */
int lowsock_udp_peer(int fd, char *name);
