/* A file or directory of a simulated disk, and what is in it: what is seen, and what is on stable
 * media. */
#ifndef MINIVAULT_IO_IO_SIM_INODE_H
#define MINIVAULT_IO_IO_SIM_INODE_H

#include "io/io_sim_internal.h"

#define PAGE_SIZE ((uint32_t)4096)

struct sim_inode;

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

#endif
