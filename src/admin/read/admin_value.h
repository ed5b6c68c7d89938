/* A record's value as a client gets it: from the record, from its zstd frame, or from its value
 * file. */
#ifndef MINIVAULT_ADMIN_ADMIN_VALUE_H
#define MINIVAULT_ADMIN_ADMIN_VALUE_H

#include "admin/read/admin.h"
#include "base/compress.h"
#include "store/record/record.h"
#include "store/value/value_file.h"

/* The name of the value file of a record that has one, relative to the data directory. */
void value_name(const struct record *record, char ret_name[VALUE_FILE_NAME_SIZE]);

/* Its file as it was listed. NULL: it is not there. */
struct catalog_file *value_find_file(const struct admin *admin, const struct record *record);

/* Verifies every block of a value file, which is reported as damage where it is not sound, also
 * when it is missing. `ret_value`, when not NULL, has room for decoded_size bytes and is filled.
 * Returns 0; -EBADMSG: damaged; -ENOMEM. */
int value_check_file(struct admin *admin, const struct record *record, uint8_t *ret_value);

/* The value, decoded_size bytes, malloc'ed, of a record at `offset` of the file `name`. Errors: -EBADMSG (damaged,
 * reported), -ENOMEM. */
int value_load(struct admin *admin, struct decompressor *decompressor, const struct record *record,
               const char *name, uint64_t offset, uint8_t **ret_value);

#endif
