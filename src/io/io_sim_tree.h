/* The disk of a simulated machine: its directories. */
#ifndef MINIVAULT_IO_IO_SIM_TREE_H
#define MINIVAULT_IO_IO_SIM_TREE_H

#include "io/io_sim_inode.h"

struct sim_disk {
    struct list_node node;
    struct sim *sim;
    struct sim_disk_options options;
    uint64_t sequence; /* of completed writes and changes */
    struct list inodes;
    struct list changes;
    struct sim_inode *root;
    struct list orphans; /* struct sim_op: writes of killed hosts that may still land */
    struct list hosts;   /* the machine's, as the next */
    struct list peers;
};

/* Frees the disk; nothing uses it any more. */
void tree_free(struct sim_disk *disk);

/* Errors: -ENOENT, -ENOTDIR. */
int tree_find(struct sim_disk *disk, const char *path, struct sim_inode **ret_inode);
int tree_create(struct sim_disk *disk, const char *path, bool is_directory,
                struct sim_inode **ret_inode);
int tree_rename(struct sim_disk *disk, const char *from, const char *to);

/* Removes a name: a file's, or an empty directory's. */
int tree_remove(struct sim_disk *disk, const char *path, bool is_directory);
void tree_sync(struct sim_disk *disk, struct sim_inode *directory, uint64_t sequence);
void tree_lose_power(struct sim_disk *disk);

/* Bytes that are taken. */
uint64_t tree_space(const struct sim_disk *disk);

#endif
