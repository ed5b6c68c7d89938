/* What was found: logged and counted once a place, however often it is read again. */
#include "store/scrub_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- places ---- */

static bool is_known(const struct scrub *scrub, const struct scrub_place *place)
{
    for (uint32_t i = 0; i < scrub->place_count; i++) {
        const struct scrub_place *known = &scrub->places[i];
        if (known->kind == place->kind && known->number == place->number &&
            known->offset == place->offset && known->origin == place->origin)
            return true;
    }
    return false;
}

/* Counts it. Returns whether it is to be logged. */
static bool note(struct scrub *scrub, const struct scrub_place *place)
{
    if (scrub->place_count == SCRUB_PLACES_MAX || is_known(scrub, place))
        return false;
    scrub->places[scrub->place_count++] = *place;
    scrub->stats.damaged += place->is_alive;
    scrub->stats.damaged_dead += !place->is_alive;
    if (scrub->place_count == SCRUB_PLACES_MAX)
        log_error(scrub->log,
                  "the scrubber has found %u damaged places: what it finds from now on is neither "
                  "counted nor logged. Replace the device",
                  SCRUB_PLACES_MAX);
    return place->is_alive;
}

static struct scrub_place place_in_file(const struct scrub *scrub, uint64_t offset, bool is_alive)
{
    return (struct scrub_place){
        .number = scrub->file.number,
        .offset = offset,
        .kind = scrub->file.is_segment ? SCRUB_SEGMENT : SCRUB_LOG,
        .is_alive = is_alive,
    };
}

static void describe_file(const struct scrub *scrub, char *ret_path)
{
    if (scrub->file.is_segment)
        segment_path(scrub->options.segments, scrub_segment(scrub), ret_path);
    else
        (void)snprintf(ret_path, SEGMENT_PATH_MAX, "%s",
                       scrub_log_find(scrub->options.wal, &scrub->file)->path);
}

/* ---- parts of segments ---- */

static bool has_alive(const struct scrub *scrub)
{
    if (scrub->file.is_segment)
        return scrub_segment(scrub)->live_records > 0;
    return scrub_log_find(scrub->options.wal, &scrub->file)->live > 0;
}

/* What is alive in a damaged segment stays where it can be read: it is no longer compacted. */
static void note_in_file(struct scrub *scrub, bool is_alive)
{
    scrub->file.has_damage = true;
    scrub->file.has_alive_damage |= is_alive;
    if (is_alive && scrub->file.is_segment)
        scrub_segment(scrub)->is_damaged = true;
}

void scrub_report_part(struct scrub *scrub, uint64_t offset, uint64_t end, const char *what)
{
    char path[SEGMENT_PATH_MAX];
    bool is_alive = has_alive(scrub);
    struct scrub_place place = place_in_file(scrub, offset, is_alive);
    note_in_file(scrub, is_alive);
    if (!note(scrub, &place))
        return;
    describe_file(scrub, path);
    log_error(scrub->log,
              "%s is damaged from offset %" PRIu64 " to %" PRIu64
              ": %s. Keys that lie there answer CORRUPT, or may be missing after the next start: "
              "restore them from a replica or a backup, and check the device",
              path, offset, end, what);
}

void scrub_report_record(struct scrub *scrub, uint64_t offset, bool is_alive, const char *what)
{
    char path[SEGMENT_PATH_MAX];
    struct scrub_place place = place_in_file(scrub, offset, is_alive);
    note_in_file(scrub, is_alive);
    if (!note(scrub, &place))
        return;
    describe_file(scrub, path);
    log_error(scrub->log,
              "%s: the record at offset %" PRIu64
              " is damaged: %s. Its key answers CORRUPT: write it again, or restore it from a "
              "replica or a backup, and check the device",
              path, offset, what);
}

void scrub_report_lost(struct scrub *scrub, uint64_t count)
{
    char path[SEGMENT_PATH_MAX];
    struct scrub_place place = place_in_file(scrub, UINT64_MAX, true);
    note_in_file(scrub, true);
    if (!note(scrub, &place))
        return;
    describe_file(scrub, path);
    log_error(scrub->log,
              "%s: %" PRIu64 " records that should be in it are not: the device has not written "
              "all that it said. Their keys answer CORRUPT: restore them from a replica or a "
              "backup, and replace the device",
              path, count);
}

/* Damage that was found before, in records that were alive then. */
static bool was_reported(const struct scrub *scrub)
{
    for (uint32_t i = 0; i < scrub->place_count; i++) {
        const struct scrub_place *place = &scrub->places[i];
        if (place->kind == SCRUB_SEGMENT && place->number == scrub->file.number && place->is_alive)
            return true;
    }
    return false;
}

void scrub_report_end(struct scrub *scrub)
{
    if (scrub->file.is_segment && !scrub->file.has_alive_damage && was_reported(scrub))
        scrub_segment(scrub)->is_damaged = false;
}

/* ---- value files ---- */

void scrub_report_value(struct scrub *scrub, uint64_t offset, const char *what)
{
    const struct value_file_name *name = &scrub->value.name;
    struct index_entry slot;
    struct scrub_place place = {
        .number = name->version.clock,
        .origin = name->version.origin,
        .offset = offset,
        .kind = SCRUB_VALUE,
        .is_alive = index_get(scrub->options.index, name->partition, scrub->value.hash,
                              name->version, &slot) == 0,
    };
    if (!note(scrub, &place))
        return;
    log_error(scrub->log,
              "%s is damaged at offset %" PRIu64
              ": %s. What is damaged is never shown: write its key again, or restore it from a "
              "replica or a backup, and check the device",
              scrub->value.path, offset, what);
}
