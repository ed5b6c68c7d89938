/* Which files of the log must be there, and which count no more: what the newest header lists, and
 * what a clean shutdown left in the superblock. The rules are those of
 * store/wal/wal_recover_listing.c. */
#ifndef MINIVAULT_ADMIN_ADMIN_LOG_LISTING_H
#define MINIVAULT_ADMIN_ADMIN_LOG_LISTING_H

#include "admin/read/admin.h"

struct log_listing {
    struct log_file_header newest; /* of the sound ones; number 0: there is none */
    struct wal_listing listing;    /* its */
    uint64_t base;                 /* position above which the log begins */
    uint64_t lost;                 /* greatest one that any header tells */
    uint64_t last_known;           /* the log had reached this position */
    uint64_t number_known;         /* and a segment with this number had its header */
    struct wal_note note;          /* greatest one: how far the manifest had come */
    uint64_t *numbers;             /* that are there, as a segment or by a mark */
    uint32_t count;
    uint32_t capacity;
};

/* `files`: how many there are. Errors: -ENOMEM. */
int listing_init(struct log_listing *listing, uint32_t files);
void listing_deinit(struct log_listing *listing);

/* Takes a sound header in its block, of whatever use of its file, or a mark. */
void listing_take_header(struct log_listing *listing, const struct log_file_header *header,
                         const uint8_t *block);

/* A segment or a mark with this number is there; at most two a file. */
void listing_take_number(struct log_listing *listing, uint64_t number);

/* What is known from elsewhere of how far the log had come. */
void listing_take_known(struct log_listing *listing, uint64_t position, uint64_t number);

/* Whether nothing in the segment is alive, since the newest header does not list it. */
bool listing_is_dead(const struct log_listing *listing, uint64_t number);

/* Reports what is gone with whole files, or with the end of the log, after the scan that proved
 * everything up to `proof` durable. */
void listing_judge(const struct log_listing *listing, struct admin *admin,
                   const struct admin_shard *shard, uint64_t proof);

#endif
