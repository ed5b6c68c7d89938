/* A host of the simulated world: a process, with its operations and their completions.
 *
 * An operation's way: io_x begins a struct sim_op, checks the contract and schedules the
 * operation's event; the event executes it and queues a completion; io_run hands that to the
 * caller. What waits for something else (a receive for bytes, an accept for a connection) has no
 * event scheduled until that is there. */
#ifndef MINIVAULT_IO_IO_SIM_HOST_H
#define MINIVAULT_IO_IO_SIM_HOST_H

#include "io/io_sim_internal.h"

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

struct sim_op {
    /* What is asked of op_begin. */
    void (*execute)(struct sim_op *op);
    enum sim_kind kind;
    uint32_t flags; /* send: the count of slices */
    uint64_t offset;
    uint64_t size;
    void *buffer;
    const char *path;
    const char *path_to;
    /* Its socket's or file's. */
    struct sim_socket *socket;
    struct sim_file *file;
    uint32_t *active;      /* how many operations are active there; NULL: it is closed */
    struct sim_op **place; /* where it is the only one of its sort; NULL: nowhere */
    uint64_t progress;     /* send: bytes taken */
    uint64_t sequence;     /* sync: the disk's when it was submitted */
    struct sim_zombie *zombie;
    /* The host's. */
    struct io *io;
    struct io_op *op;
    struct sim_event event;
    struct list_node node; /* of its host's active ones; of its disk's orphans */
    bool is_sealed;        /* strict: what must not change has this sum */
    uint32_t sum;
    bool is_cancelled;
    bool is_done; /* its last completion is queued */
};

enum sim_host_state { SIM_HOST_RUNS, SIM_HOST_CRASHED, SIM_HOST_CLOSING };

struct io {
    struct list_node node; /* of its machine's hosts */
    struct sim *sim;
    struct sim_disk *disk; /* the machine's */
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

/* A host that runs. */
struct io *host_create(struct sim *sim, struct sim_disk *disk, const struct io_options *options);

/* Forgets the completions and the operations: their owners never hear of them again. */
void host_forget(struct io *io);
void host_free(struct io *io);

/* Takes an idle operation for what is `asked`. NULL: the host has crashed, nothing will ever
 * complete. */
struct sim_op *op_begin(struct io *io, struct io_op *op, struct sim_op asked);

const char *op_name(const struct sim_op *op);

/* Executes it `delay_ns` from now. */
void op_schedule(struct sim_op *op, uint64_t delay_ns);

/* Queues a completion of a multishot operation that goes on. `data` is handed over. */
void op_complete_more(struct sim_op *op, int32_t result, uint8_t *data);

/* Queues the last completion. */
void op_complete(struct sim_op *op, int32_t result);

/* ---- io_sim_file.c: open files ---- */

struct sim_file {
    struct list_node node; /* of a zombie */
    struct sim_inode *inode;
    int handle;
    uint32_t flags;
    uint32_t active; /* operations on it */
    bool is_closing;
};

void file_free(struct sim_file *file);

/* What the operation does to the disk, without its completion. */
int32_t file_apply(struct sim_op *op);

/* ---- io_sim_net.c: sockets ---- */

/* The process ends. `is_cut`: so does its machine, and says nothing. */
void net_end(struct io *io, bool is_cut);

#endif
