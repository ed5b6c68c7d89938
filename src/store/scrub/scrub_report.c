/* What was found: logged and counted once a place, however often it is read again. */
#include "store/scrub/scrub_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- places ---- */

static struct scrub_place *find_place(const struct scrub *scrub, const struct scrub_place *place)
{
    for (uint32_t i = 0; i < scrub->place_count; i++) {
        struct scrub_place *known = &scrub->places[i];
        if (known->kind == place->kind && known->number == place->number &&
            known->offset == place->offset && known->origin == place->origin)
            return known;
    }
    return NULL;
}

static void set_state(struct scrub *scrub, struct scrub_place *place, enum scrub_place_state state)
{
    scrub->stats.damaged -= place->state == SCRUB_PLACE_ALIVE;
    scrub->stats.damaged_dead -= place->state == SCRUB_PLACE_DEAD;
    place->state = (uint8_t)state;
    scrub->stats.damaged += state == SCRUB_PLACE_ALIVE;
    scrub->stats.damaged_dead += state == SCRUB_PLACE_DEAD;
}

static struct scrub_place *add_place(struct scrub *scrub, const struct scrub_place *place)
{
    if (scrub->place_count == SCRUB_PLACES_MAX)
        return NULL;
    struct scrub_place *added = &scrub->places[scrub->place_count++];
    *added = *place;
    added->state = SCRUB_PLACE_GONE;
    if (scrub->place_count == SCRUB_PLACES_MAX)
        log_error(scrub->log,
                  "the scrubber has found %u damaged places: what it finds from now on is neither "
                  "counted nor logged. Replace the device",
                  SCRUB_PLACES_MAX);
    return added;
}

/* Counts it. Returns whether it is to be logged. */
static bool note(struct scrub *scrub, const struct scrub_place *place)
{
    struct scrub_place *known = find_place(scrub, place);
    if (known == NULL)
        known = add_place(scrub, place);
    if (known == NULL)
        return false;
    known->pass = scrub->stats.passes;
    set_state(scrub, known, (enum scrub_place_state)place->state);
    bool is_news = place->state == SCRUB_PLACE_ALIVE && !known->is_told;
    known->is_told |= is_news;
    return is_news;
}

void scrub_report_pass(struct scrub *scrub)
{
    if (scrub->is_pass_incomplete)
        return;
    for (uint32_t i = 0; i < scrub->place_count; i++)
        if (scrub->places[i].pass != scrub->stats.passes)
            set_state(scrub, &scrub->places[i], SCRUB_PLACE_GONE);
}

static enum scrub_place_state state_of(bool is_alive)
{
    return is_alive ? SCRUB_PLACE_ALIVE : SCRUB_PLACE_DEAD;
}

static struct scrub_place place_in_file(const struct scrub *scrub, uint64_t offset, bool is_alive)
{
    return (struct scrub_place){
        .number = scrub->file.number,
        .offset = offset,
        .kind = scrub->file.is_segment ? SCRUB_SEGMENT : SCRUB_LOG,
        .state = (uint8_t)state_of(is_alive),
    };
}

static void describe_file(const struct scrub *scrub, char *ret_path)
{
    if (scrub->file.is_segment)
        segment_path(scrub->options.segments, scrub_segment(scrub), ret_path);
    else
        (void)snprintf(ret_path, SEGMENT_PATH_MAX, "%s",
                       wal_file_path(scrub->options.wal, scrub->file.file, scrub->file.number));
}

/* ---- parts of segments ---- */

static bool has_alive(const struct scrub *scrub)
{
    if (scrub->file.is_segment)
        return scrub_segment(scrub)->live_records > 0;
    return wal_file_is_alive(scrub->options.wal, scrub->file.file);
}

/* What is alive in a damaged segment stays where it can be read: it is no longer compacted. */
static void keep_segment(struct scrub *scrub)
{
    if (scrub->file.is_segment)
        scrub_segment(scrub)->is_damaged = true;
}

void scrub_report_part(struct scrub *scrub, uint64_t offset, uint64_t end, const char *what)
{
    char path[SEGMENT_PATH_MAX];
    bool is_alive = has_alive(scrub);
    struct scrub_place place = place_in_file(scrub, offset, is_alive);
    scrub->file.has_damage = true;
    scrub->file.has_bad_part = true;
    if (is_alive)
        keep_segment(scrub);
    if (!note(scrub, &place))
        return;
    describe_file(scrub, path);
    log_error(scrub->log,
              "%s is damaged from offset %" PRIu64 " to %" PRIu64
              ": %s. Keys that lie there answer CORRUPT, or may be missing after the next start: "
              "restore them from a replica or a backup, and check the device",
              path, offset, end, what);
}

void scrub_report_record(struct scrub *scrub, uint64_t offset, enum scrub_life life,
                         const char *what)
{
    char path[SEGMENT_PATH_MAX];
    struct scrub_place place = place_in_file(scrub, offset, life == SCRUB_NEWEST);
    scrub->file.has_damage = true;
    scrub->file.has_alive_damage |= life != SCRUB_DEAD;
    if (life != SCRUB_DEAD)
        keep_segment(scrub);
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
    scrub->file.has_damage = true;
    scrub->file.has_alive_damage = true;
    keep_segment(scrub);
    if (!note(scrub, &place))
        return;
    describe_file(scrub, path);
    log_error(scrub->log,
              "%s: %" PRIu64 " records that should be in it are not: the device has not written "
              "all that it said. Their keys answer CORRUPT: restore them from a replica or a "
              "backup, and replace the device",
              path, count);
}

void scrub_report_end(struct scrub *scrub, bool is_complete)
{
    struct segment *segment = scrub_segment(scrub);
    if (!is_complete || scrub->file.has_alive_damage)
        return;
    for (uint32_t i = 0; i < scrub->place_count; i++) {
        struct scrub_place *place = &scrub->places[i];
        if (place->kind == SCRUB_SEGMENT && place->number == segment->number &&
            place->state == SCRUB_PLACE_ALIVE)
            set_state(scrub, place, SCRUB_PLACE_DEAD);
    }
    if (!segment->has_loss) /* whose lost part a start may have to look for again */
        segment->is_damaged = false;
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
    };
    uint32_t count = index_find(scrub->options.index, name->partition, scrub->value.hash, &slot, 1);
    place.state =
        (uint8_t)state_of(count > 0 && version_compare(slot.version, scrub->value.version) == 0);
    if (!note(scrub, &place))
        return;
    log_error(scrub->log,
              "%s is damaged at offset %" PRIu64
              ": %s. What is damaged is never shown: write its key again, or restore it from a "
              "replica or a backup, and check the device",
              scrub->value.path, offset, what);
}

/* ---- superblock, manifest, checkpoint ---- */

void scrub_report_meta(struct scrub *scrub, enum scrub_kind kind, uint64_t number, uint64_t offset,
                       const char *what)
{
    struct scrub_place place = {
        .number = number,
        .offset = offset,
        .kind = (uint8_t)kind,
        .state = SCRUB_PLACE_ALIVE,
    };
    if (note(scrub, &place))
        log_error(scrub->log,
                  "%s is damaged at offset %" PRIu64
                  ": %s. Nothing is lost: it is written anew from memory. Check the device",
                  scrub->meta.path, offset, what);
}

void scrub_report_mended(struct scrub *scrub, enum scrub_kind kind, uint64_t number,
                         uint64_t offset)
{
    static const char *const names[] = {"superblock", "manifest", "checkpoint"};
    struct scrub_place wanted = {.number = number, .offset = offset, .kind = (uint8_t)kind};
    struct scrub_place *place = find_place(scrub, &wanted);
    if (place == NULL || place->state != SCRUB_PLACE_ALIVE)
        return;
    set_state(scrub, place, SCRUB_PLACE_GONE);
    place->is_told = false; /* damage to what is there now is news */
    scrub->stats.mended++;
    log_warn(scrub->log, "the damaged %s was written anew", names[kind]);
}
