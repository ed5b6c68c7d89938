/* What damage has put in doubt: positions of the log up to which acknowledged writes were lost. */
#ifndef MINIVAULT_STORE_DAMAGE_H
#define MINIVAULT_STORE_DAMAGE_H

#include "base/units.h"

#include <stdbool.h>
#include <stdint.h>

#define STORE_PARTITIONS 256u

struct damage {
    uint64_t log_last; /* of the log, for all keys; 0: none */
    uint64_t of_partition[STORE_PARTITIONS];
};

/* Whether what is known at this log position may have been overwritten by a write that damage
 * destroyed. Position 0: nothing is known of the key. */
static inline bool damage_covers(const struct damage *damage, uint32_t partition, uint64_t position)
{
    uint64_t last = max_u64(damage->log_last, damage->of_partition[partition]);
    return last != 0 && position <= last;
}

#endif
