/* Passes, from phase to phase. The parts call nobody here: each tells when it is over.
 *
 *   RESTING -> META -> CHOOSING <-> FILE
 *      ^__________________|
 *   any -> STOPPED
 *
 *   scrub_rate.c    how fast disks are read
 *   scrub_meta.c    superblock, manifest, checkpoint
 *   scrub_file.c    a log file or segment, with its records
 *   scrub_value.c   value files that records name */
#include "store/scrub/scrub.h"

#include "base/assert.h"
#include "store/scrub/scrub_internal.h"

#include <errno.h>
#include <stdlib.h>

#define PARTITIONS 256u

/* Passes of a disk that is read sooner than needed do not begin more often than that. Whoever names
 * a rate wants no more rest than keeps an idle server asleep. */
#define PASS_NS_MIN_AUTO (3600 * NS_PER_S)
#define PASS_REST_NS NS_PER_S

/* ---- the next file ---- */

static void begin_pass(struct scrub *scrub)
{
    assert(scrub->phase == SCRUB_RESTING);
    scrub->phase = SCRUB_META;
    scrub->pass_began_ns = io_now_ns(scrub->io);
    scrub->group = 0;
    scrub->number_last = 0;
    scrub->log_last = wal_number(scrub->options.wal);
    scrub_meta_begin(&scrub->meta);
}

static void end_pass(struct scrub *scrub)
{
    uint64_t now_ns = io_now_ns(scrub->io);
    findings_end_pass(scrub->options.findings);
    scrub->pass_ended_ns = now_ns;
    scrub->pass_next_ns = now_ns + PASS_REST_NS;
    if (scrub->options.rate == SCRUB_AUTO)
        scrub->pass_next_ns = max_u64(scrub->pass_next_ns, scrub->pass_began_ns + PASS_NS_MIN_AUTO);
    scrub->phase = SCRUB_RESTING;
}

/* Returns its number, or 0: there is none. */
static uint64_t begin_next(struct scrub *scrub)
{
    if (scrub->group == 0)
        return scrub_file_begin_log(&scrub->file, scrub->number_last, scrub->log_last);
    uint32_t partition = (scrub->partition_first + scrub->group - 1) % PARTITIONS;
    return scrub_file_begin_segment(&scrub->file, (uint8_t)partition, scrub->number_last);
}

static void choose(struct scrub *scrub)
{
    for (; scrub->group <= PARTITIONS; scrub->group++) {
        uint64_t number = begin_next(scrub);
        assert(number == 0 || number > scrub->number_last);
        scrub->number_last = number;
        if (number != 0) {
            scrub->phase = SCRUB_FILE;
            return;
        }
    }
    end_pass(scrub);
}

/* ---- from phase to phase ---- */

static bool rest(struct scrub *scrub)
{
    if (io_now_ns(scrub->io) < scrub->pass_next_ns) {
        scrub_rate_sleep(&scrub->rate, scrub->pass_next_ns);
        return false;
    }
    begin_pass(scrub);
    return true;
}

static bool run(struct scrub *scrub, uint64_t budget)
{
    enum scrub_progress progress = scrub->phase == SCRUB_META
                                       ? scrub_meta_step(&scrub->meta, budget)
                                       : scrub_file_step(&scrub->file, budget);
    if (progress == SCRUB_OVER)
        scrub->phase = SCRUB_CHOOSING;
    return progress != SCRUB_WAITS;
}

bool scrub_step(struct scrub *scrub, uint64_t budget)
{
    if (scrub == NULL)
        return false;
    scrub_meta_settle(&scrub->meta);
    if (scrub_rate_is_asleep(&scrub->rate))
        return false;
    if (scrub->is_stopping) {
        if (!scrub_file_stop(&scrub->file) && !scrub_meta_stop(&scrub->meta))
            scrub->phase = SCRUB_STOPPED;
        return false;
    }
    switch (scrub->phase) {
    case SCRUB_RESTING:
        return rest(scrub);
    case SCRUB_META:
    case SCRUB_FILE:
        return run(scrub, budget);
    case SCRUB_CHOOSING:
        choose(scrub);
        return true;
    case SCRUB_STOPPED:
        break;
    }
    return false;
}

/* ---- beginning and end ---- */

int scrub_create(struct io *io, const struct log *log, const struct scrub_options *options,
                 struct scrub **ret_scrub)
{
    struct scrub *scrub = calloc(1, sizeof *scrub);
    if (scrub == NULL)
        return -ENOMEM;
    uint8_t chance;
    io_random(io, &chance, sizeof chance);
    scrub->io = io;
    scrub->options = *options;
    scrub->partition_first = chance;
    scrub->pass_ended_ns = io_now_ns(io);
    scrub->phase = SCRUB_RESTING;
    scrub_rate_init(&scrub->rate, io, &scrub->options);
    scrub_meta_init(&scrub->meta, io, log, &scrub->options, &scrub->rate, options->findings);
    scrub_file_init(&scrub->file, io, &scrub->options, &scrub->rate, options->findings);
    *ret_scrub = scrub;
    return 0;
}

void scrub_stop(struct scrub *scrub)
{
    if (scrub == NULL)
        return;
    scrub->is_stopping = true;
    scrub_rate_wake(&scrub->rate);
}

bool scrub_is_busy(const struct scrub *scrub)
{
    return scrub != NULL && (scrub->phase != SCRUB_STOPPED || scrub_rate_is_asleep(&scrub->rate));
}

void scrub_free(struct scrub *scrub)
{
    free(scrub);
}

void scrub_stats(const struct scrub *scrub, struct scrub_stats *ret_stats)
{
    *ret_stats = (struct scrub_stats){0};
    if (scrub == NULL)
        return;
    scrub_rate_stats(&scrub->rate, ret_stats);
    ret_stats->passes = scrub->options.findings->passes;
    ret_stats->pass_age_s = (io_now_ns(scrub->io) - scrub->pass_ended_ns) / NS_PER_S;
}
