/* Files as the offline tools see them: opened for reading, and for nothing else. The only file here
 * that touches the disk; nothing that it does changes a byte of it. Everything blocks. */
#ifndef MINIVAULT_ADMIN_ADMIN_FILES_H
#define MINIVAULT_ADMIN_ADMIN_FILES_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>

/* `name` is relative to the directory, ADMIN_HERE: to where the tool runs. A handle. Errors:
 * open(2)'s. */
#define ADMIN_HERE AT_FDCWD
int admin_open_directory(int directory, const char *name);

/* `name` is relative to the directory. A handle. Errors: open(2)'s; -EINVAL (not a regular file).
 */
int admin_open_file(int directory, const char *name);
void admin_close(int handle);

/* Of the file of that name. Errors: stat(2)'s. */
int64_t admin_file_size(int directory, const char *name);

/* "NAME (NUMBER)" of the user that this runs as; of the one whose the file is, or else the directory,
 * where the file cannot be looked at. */
#define ADMIN_USER_SIZE 64
void admin_user(char ret_user[ADMIN_USER_SIZE]);
void admin_owner(int directory, const char *name, char ret_user[ADMIN_USER_SIZE]);

/* Seconds since it was last written. Errors: -errno. */
int64_t admin_file_age_s(int file);

/* Returns how many bytes were read: fewer than `size` only at the end of the file. Errors: -errno.
 */
int64_t admin_read(int file, void *buffer, uint64_t size, uint64_t offset);

/* Shows the entries of a directory within `directory` ("." is that itself) but "." and "..", in no
 * order; stops with what `each` returns when that is not 0. Errors: -errno. */
typedef int admin_list_each(void *context, const char *name);
int admin_list(int directory, const char *name, admin_list_each *each, void *context);

/* A shared lock, as long as the file is open: a server's exclusive one keeps us out, and ours keeps
 * a server out. Tries for a second, since what a process had under way may end after it. Errors:
 * -EWOULDBLOCK. */
int admin_lock_shared(int file);

/* Monotonic. */
uint64_t admin_now_ns(void);

#endif
