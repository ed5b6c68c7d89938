/* The simulated world's inside, shared by the io_sim*.c files alone.
 *
 * An operation's way: io_x takes a struct sim_op, checks the contract and schedules the operation's
 * event; the event executes it and queues a completion; io_run hands that to the caller. What waits
 * for something else (a receive for bytes, an accept for a connection) has no event scheduled until
 * that is there. */
#ifndef MINIVAULT_IO_IO_SIM_INTERNAL_H
#define MINIVAULT_IO_IO_SIM_INTERNAL_H

#include "base/assert.h"
#include "base/list.h"
#include "io/io_sim.h"

#define SECTOR_SIZE ((uint32_t)512)
#define PAGE_SIZE ((uint32_t)4096)
#define PAGE_SECTORS (PAGE_SIZE / SECTOR_SIZE)
#define MILLION 1000000u

enum sim_kind {
    SIM_NONE,
    SIM_TIMER,
    SIM_ACCEPT,
    SIM_RECEIVE,
    SIM_RECEIVE_INTO,
    SIM_SEND,
    SIM_SHUTDOWN,
    SIM_CLOSE_SOCKET,
    SIM_OPEN,
    SIM_CLOSE_FILE,
    SIM_READ,
    SIM_WRITE,
    SIM_SYNC,
    SIM_ALLOCATE,
    SIM_TRUNCATE,
    SIM_RENAME,
    SIM_UNLINK,
};

enum sim_op_state { SIM_IDLE, SIM_ACTIVE };

struct sim_op;

/* What the world does for an operation of one family: files, sockets, timers. */
struct sim_family {
    void (*execute)(struct sim_op *op);
    void (*retire)(struct sim_op *op); /* its last completion is handed over; NULL: nothing to do */
};

struct sim_op {
    const struct sim_family *family;
    struct sim_event event;
    struct list_node node; /* of its host's active ones */
    struct io *io;
    struct io_op *op;
    enum sim_kind kind;
    bool is_sealed; /* strict: what must not change has this sum */
    uint32_t sum;
    uint64_t submitted_ns;
    bool is_cancelled;
    bool is_done; /* its last completion is queued */
    uint32_t flags;
    uint64_t offset;
    uint64_t size;
    uint64_t progress; /* send: bytes taken */
    uint64_t sequence; /* sync: the disk's when it was submitted */
    void *buffer;
    const char *path;
    const char *path_to;
    struct sim_socket *socket;
    struct sim_file *file;
};

/* Lent bytes belong to the completion. */
struct sim_completion {
    struct list_node node; /* of its host's ready ones */
    struct sim_op *op;
    int32_t result;
    bool is_last;
    uint8_t *data;
    uint32_t data_size;
};

struct sim {
    struct sim_options options;
    uint64_t seed;
    uint64_t now_ns;
    struct prng prng;
    uint64_t sequence; /* of events */
    struct sim_event **queue;
    uint32_t queue_count;
    uint32_t queue_capacity;
    uint64_t hash;
    sim_trace *trace;
    void *trace_context;
    uint32_t hosts_count; /* ever */
    struct list hosts;
    struct list disks;
    struct list peers;
};

enum sim_host_state { SIM_HOST_RUNS, SIM_HOST_CRASHED, SIM_HOST_CLOSING };

struct io {
    struct list_node node;
    struct sim *sim;
    struct sim_disk *disk;
    struct io_options options;
    uint32_t number;
    enum sim_host_state state;
    bool is_running; /* within io_run: it is not re-entered */
    bool is_woken;
    uint8_t *region;
    uint64_t now_ns;
    uint64_t wall_ms;
    int64_t wall_offset_ms;
    bool wall_is_frozen;
    uint64_t steps;
    uint64_t crash_at_steps; /* 0: not planned */
    enum sim_crash crash;
    void (*crash_now)(struct io *io, enum sim_crash crash); /* the planned one comes */
    struct list active;                                     /* operations */
    struct list ready;                                      /* completions */
    struct sim_socket **sockets;                            /* by handle */
    uint32_t sockets_from;                                  /* no handle below is free */
    struct sim_file **files;                                /* by handle */
};

/* ---- io_sim.c: time, events, the trace ---- */

/* The clients of this world: struct sim_peer. */
struct list *sim_peers(struct sim *sim);

/* Memory or death. */
void *sim_allocate(size_t size);

/* Prints what breach of io.h's contract was found, and aborts. */
__attribute__((noreturn, format(printf, 2, 3))) void sim_breach(const struct io *io,
                                                                const char *format, ...);

/* One thing that happened, for the hash and the trace. */
void sim_note(struct sim *sim, uint32_t host, const char *what, int64_t a, int64_t b);

/* Whether something of this chance happens now. */
bool sim_happens(struct sim *sim, uint32_t ppm);

/* Usually some part of `max`, with a tail towards the short ones. */
uint64_t sim_delay(struct sim *sim, uint64_t max_ns);

/* Fires what is due at `now_ns`, or moves to the next event when that is at most `until_ns`. False:
 * there is none. */
bool sim_step(struct sim *sim, uint64_t until_ns);

/* ---- io_sim_op.c: operations and completions ---- */

/* Takes an idle operation. NULL: the host has crashed, nothing will ever complete. */
struct sim_op *op_begin(struct io *io, struct io_op *op, enum sim_kind kind,
                        const struct sim_family *family);

/* Executes it `delay_ns` from now. */
void op_schedule(struct sim_op *op, uint64_t delay_ns);

/* Queues a completion of a multishot operation that goes on. `data` is handed over. */
void op_complete_more(struct sim_op *op, int32_t result, uint8_t *data, uint32_t data_size);

/* Queues the last completion. */
void op_complete(struct sim_op *op, int32_t result);
void op_complete_with(struct sim_op *op, int32_t result, uint8_t *data, uint32_t data_size);

/* Sum of what the caller must leave alone. */
uint32_t op_sum(const struct sim_op *op);
void op_seal(struct sim_op *op);

/* Forgets the operation: its owner never hears of it again. */
void op_forget(struct sim_op *op);
void completion_free(struct sim_completion *completion);

/* ---- io_sim_inode.c: contents of files, volatile and durable ---- */

/* A page that is not all durable. */
struct sim_dirty {
    struct list_node node; /* of its inode */
    uint64_t page;
    uint8_t mask;                 /* sectors */
    uint64_t first[PAGE_SECTORS]; /* the disk's sequence of the first and last write since it was
                                     durable */
    uint64_t last[PAGE_SECTORS];
    uint8_t old[PAGE_SIZE];
};

struct sim_page {
    uint8_t *now; /* NULL: zeros */
    struct sim_dirty *dirty;
};

struct sim_entry {
    char *name;
    uint64_t hash; /* of the name */
    struct sim_inode *inode;
};

struct sim_directory {
    struct sim_entry *entries;
    uint32_t count;
    uint32_t capacity;
};

struct sim_inode {
    struct list_node node;
    uint32_t number;
    bool is_directory;
    bool is_reached;       /* the sweep's mark */
    uint32_t opens;        /* files of it */
    const void *locked_by; /* struct sim_file; NULL: nobody */
    uint64_t size;
    uint64_t size_durable;
    uint64_t size_changed; /* sequence of the first change that is not durable; 0: none */
    uint64_t reserved;     /* bytes of space */
    struct sim_page *pages;
    uint64_t page_count;
    struct list dirty;
    struct sim_directory now;     /* of a directory: what is seen */
    struct sim_directory durable; /* and what is on media */
};

/* How a crash treats something that was not synced. */
enum sim_fate { SIM_FATE_OLD, SIM_FATE_NEW, SIM_FATE_PREFIX, SIM_FATE_MIXED, SIM_FATE_COUNT };

void inode_read(const struct sim_inode *inode, void *buffer, uint64_t size, uint64_t offset);
void inode_write(struct sim_inode *inode, const void *buffer, uint64_t size, uint64_t offset,
                 uint64_t sequence, bool is_durable);

/* Part of a write, as a crash in the middle leaves it. */
void inode_write_torn(struct sim *sim, struct sim_inode *inode, const void *buffer, uint64_t size,
                      uint64_t offset, uint64_t sequence, bool is_durable);
void inode_resize(struct sim_inode *inode, uint64_t size, uint64_t sequence);

/* Makes durable what was written up to `sequence`, and by chance what came later. */
void inode_sync(struct sim *sim, struct sim_inode *inode, uint64_t sequence);

/* A sync that failed. What went through the page cache is clean to the system, still seen, and lost
 * to the media; what went to the device directly it has lost, so that reads show the old, or not.
 */
void inode_sync_failed(struct sim *sim, struct sim_inode *inode, bool is_direct);

/* The power goes. */
void inode_lose_power(struct sim *sim, struct sim_inode *inode);

/* Flips a bit of a byte within the file. */
void inode_rot(struct sim_inode *inode, uint64_t offset, uint8_t bit);
void inode_free(struct sim_inode *inode);

/* ---- io_sim_tree.c: directories ---- */

/* A change of directories that no sync has covered: from one name, to another, or one of both. */
struct sim_change {
    struct list_node node;
    uint64_t sequence;
    struct sim_inode *inode;
    struct sim_inode *from;
    struct sim_inode *to;
    char *from_name;
    char *to_name;
};

/* A killed process whose last writes may still land; its locks are held meanwhile. */
struct sim_zombie {
    uint32_t writes;
    struct list files; /* struct sim_file */
};

struct sim_disk {
    struct list_node node;
    struct sim *sim;
    struct sim_disk_options options;
    uint64_t sequence;     /* of completed writes and changes */
    uint32_t inodes_count; /* ever */
    struct list inodes;
    struct list changes;
    struct list orphans; /* struct sim_orphan */
    struct sim_inode *root;
};

void tree_init(struct sim_disk *disk);
void tree_free(struct sim_disk *disk);

/* Errors: -ENOENT, -ENOTDIR. */
int tree_find(struct sim_disk *disk, const char *path, struct sim_inode **ret_inode);
int tree_create(struct sim_disk *disk, const char *path, bool is_directory,
                struct sim_inode **ret_inode);
int tree_rename(struct sim_disk *disk, const char *from, const char *to);
int tree_unlink(struct sim_disk *disk, const char *path);
int tree_remove_directory(struct sim_disk *disk, const char *path);
void tree_sync(struct sim_disk *disk, struct sim_inode *directory, uint64_t sequence);
void tree_lose_power(struct sim_disk *disk);

/* Frees what no name, change or open file leads to. */
void tree_sweep(struct sim_disk *disk);

/* Bytes that are taken. */
uint64_t tree_space(const struct sim_disk *disk);

/* ---- io_sim_file.c: the operations ---- */

/* An open file. */
struct sim_file {
    struct list_node node; /* of a zombie */
    struct sim_inode *inode;
    int handle;
    uint32_t flags;
    uint32_t active; /* operations on it */
    bool is_closing;
};

/* A write of a killed process that may still land. */
struct sim_orphan {
    struct sim_event event;
    struct list_node node;
    struct sim_disk *disk;
    struct sim_inode *inode;
    struct sim_zombie *zombie;
    uint8_t *data;
    uint64_t size;
    uint64_t offset;
    bool is_durable;
};

void file_free(struct sim_file *file);

/* What the operation does to the disk, without its completion. */
int32_t file_apply(struct sim_op *op);

/* ---- io_sim_disk.c: the end of a process ---- */

/* The host is gone: what was in flight happens in part; locks and files are given back. */
void files_crash(struct io *io, enum sim_crash crash);
void files_close(struct io *io);
void orphans_lose_power(struct sim_disk *disk);

/* ---- io_sim_net.c: the host's side of connections ---- */

struct sim_socket {
    int handle;
    uint32_t active; /* operations on it */
    bool is_closing;
    bool is_listener;
    bool is_shared; /* others may join its port */
    uint16_t port;  /* of a listener, as the next three */
    uint32_t backlog;
    uint32_t queued_count;
    struct list queued; /* connections, to be accepted */
    struct sim_connection *connection;
    struct sim_op *accept; /* active ones, one of a kind */
    struct sim_op *receive;
    struct sim_op *send;
};

/* The process ends. */
void net_crash(struct io *io, enum sim_crash crash);

/* ---- io_sim_wire.c: streams, packets and the clients ---- */

/* One direction of a stream. */
struct sim_pipe {
    uint8_t *bytes;
    size_t capacity;
    size_t start;        /* of what was not taken */
    size_t size;         /* not taken */
    size_t arrived;      /* of it, what the receiver can see */
    size_t size_max;     /* a sender waits beyond it */
    uint64_t arrival_ns; /* of the last packet */
    bool is_finished;    /* FIN was sent */
    bool has_ended;      /* and has arrived */
};

/* What the wire tells the host's end of a connection. */
struct sim_host_end {
    bool (*connects)(struct sim_connection *connection); /* whether a listener queues it */
    void (*readable)(struct sim_connection *connection); /* bytes, an end or an error */
    void (*writable)(struct sim_connection *connection); /* room or an error */
};

struct sim_connection {
    struct sim *sim;
    const struct sim_host_end *host_end;
    struct sim_disk *disk; /* the machine */
    uint16_t port;
    uint32_t references;       /* its two ends and what is on its way */
    struct io *io;             /* NULL: the host's end is not there yet, or gone */
    struct sim_socket *socket; /* once it is accepted */
    struct sim_peer *peer;     /* NULL: the client's end is gone */
    struct sim_pipe up;        /* to the host */
    struct sim_pipe down;      /* to the client */
    int host_error;            /* what the ends get; 0: nothing is wrong */
    int peer_error;
    struct list_node node; /* of the listener's queue */
};

struct sim_peer {
    struct list_node node;
    struct sim *sim;
    struct sim_connection *connection;
    sim_peer_changed *changed;
    void *context;
    bool wants_room;
};

/* A client connects to `port` of a machine: sim_connect. */
struct sim_peer *wire_connect(struct sim *sim, struct sim_disk *disk, uint16_t port,
                              const struct sim_host_end *host_end, sim_peer_changed *changed,
                              void *context);

/* Appends to a stream and sends it on its way. Returns how much was taken. */
size_t pipe_send(struct sim_connection *connection, struct sim_pipe *pipe, const void *data,
                 size_t size);
size_t pipe_take(struct sim_pipe *pipe, void *buffer, size_t size);
void pipe_finish(struct sim_connection *connection, struct sim_pipe *pipe);

/* The host took bytes: the client may have waited for room. */
void wire_made_room(struct sim_connection *connection);

/* The host's end goes: orderly (what was not received makes it a reset, as TCP does), or with a
 * reset. `is_cut`: what is still on the wire may be lost. */
void wire_close_host(struct sim_connection *connection, bool is_reset, bool is_cut);

#endif
