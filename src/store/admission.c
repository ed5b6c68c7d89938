/* What has to be there for a write, and what it is told when it is not. */
#include "store/admission.h"

#include "store/store_internal.h"

#include <errno.h>

static enum admission of_any(const struct store *store)
{
    if (store->failed != 0)
        return ADMISSION_FAILED;
    if (store->presence.is_gone)
        return ADMISSION_GONE;
    return reserve_is_released(&store->reserve) ? ADMISSION_NO_SPACE : ADMISSION_OPEN;
}

enum admission admission_of_set(const struct store *store)
{
    enum admission admission = of_any(store);
    if (admission == ADMISSION_OPEN && !wal_takes_sets(store->wal))
        return ADMISSION_NO_SPACE;
    return admission;
}

/* What lies in files could take all that moving records needs, and that the next start needs. */
enum admission admission_of_file(const struct store *store, uint64_t size)
{
    enum admission admission = of_any(store);
    if (admission != ADMISSION_OPEN)
        return admission;
    uint64_t free_size = UINT64_MAX, total_size;
    (void)io_disk_space(store->io, store->options.path, &free_size, &total_size);
    uint64_t kept = store->options.shard_count * (store->reserve.size + store->reserved_bytes);
    if (!wal_has_space(store->wal) || free_size < kept + size)
        return ADMISSION_NO_SPACE;
    return io_inodes_free(store->io, store->options.path) == 0 ? ADMISSION_NO_INODES
                                                               : ADMISSION_OPEN;
}

const char *admission_text(enum admission admission)
{
    static const char *const texts[] = {
        [ADMISSION_OPEN] = "none",
        [ADMISSION_NO_MEMORY] = "-memory is used up",
        [ADMISSION_NO_INODES] = "the file system has no inodes left",
        [ADMISSION_NO_SPACE] = "the disk is full",
        [ADMISSION_GONE] = "the data directory is gone",
        [ADMISSION_FAILED] = "a write to the disk failed",
    };
    assert(admission < sizeof texts / sizeof texts[0]);
    return texts[admission];
}

static enum store_status status_of(int error)
{
    switch (error) {
    case -ENOSPC:
    case -EDQUOT:
        return STORE_NO_SPACE;
    case -EFBIG:
        return STORE_TOO_LARGE;
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
        return STORE_BUSY;
    default:
        return STORE_FAILED;
    }
}

/* A value that is too large is the client's error. */
enum store_status admission_failed(struct store *store, const char *what, int error)
{
    enum store_status status = status_of(error);
    if (status != STORE_TOO_LARGE)
        refusals_tell(&store->refusals, what, error);
    return status;
}

/* What failed for good has been told when it did. */
enum store_status admission_refuse(struct store *store, const char *what, enum admission admission)
{
    assert(admission != ADMISSION_OPEN);
    if (admission >= ADMISSION_GONE)
        return STORE_FAILED;
    return admission_failed(store, what, -ENOSPC);
}
