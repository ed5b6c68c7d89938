/* Whether a write would be taken now, and why not: the one answer for the refusal itself, for
 * /readyz and for the status that HEALTH tells. */
#ifndef MINIVAULT_STORE_ADMISSION_H
#define MINIVAULT_STORE_ADMISSION_H

#include "store/store.h"

/* Of a set whose value goes into the log. */
enum admission admission_of_set(const struct store *store);

/* Of one whose value, of `size` bytes, goes into a file of its own. */
enum admission admission_of_file(const struct store *store, uint64_t size);

/* Refuses it: tells the log, and returns the status. `what`: as in "a set". `admission` is not OPEN;
 * admission_failed is for a write that met the error itself. */
enum store_status admission_refuse(struct store *store, const char *what, enum admission admission);
enum store_status admission_failed(struct store *store, const char *what, int error);

#endif
