/* Opens, reads and lists files without changing a byte. Of the tools only this file touches the
 * disk. */
#include "admin/read/admin_files.h"

#include "base/units.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_TRIES 20
#define LOCK_PAUSE_NS (50 * NS_PER_MS)

int admin_open_directory(int directory, const char *name)
{
    int handle = openat(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return handle < 0 ? -errno : handle;
}

int admin_open_file(int directory, const char *name)
{
    struct stat status;
    /* Without O_NONBLOCK a FIFO of this name would hold us. */
    int handle = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (handle < 0)
        return -errno;
    if (fstat(handle, &status) != 0 || !S_ISREG(status.st_mode)) {
        (void)close(handle);
        return -EINVAL;
    }
    (void)posix_fadvise(handle, 0, 0, POSIX_FADV_SEQUENTIAL);
    return handle;
}

void admin_close(int handle)
{
    if (handle >= 0)
        (void)close(handle);
}

int64_t admin_file_size(int directory, const char *name)
{
    struct stat status;
    return fstatat(directory, name, &status, 0) != 0 ? -errno : (int64_t)status.st_size;
}

static void name_user(uid_t number, char ret_user[ADMIN_USER_SIZE])
{
    const struct passwd *user = getpwuid(number);
    (void)snprintf(ret_user, ADMIN_USER_SIZE, "%.40s (%u)", user != NULL ? user->pw_name : "?",
                   (unsigned)number);
}

void admin_user(char ret_user[ADMIN_USER_SIZE])
{
    name_user(geteuid(), ret_user);
}

void admin_owner(int directory, const char *name, char ret_user[ADMIN_USER_SIZE])
{
    struct stat status;
    if (fstatat(directory, name, &status, 0) == 0 ||
        fstatat(directory, "", &status, AT_EMPTY_PATH) == 0)
        name_user(status.st_uid, ret_user);
    else
        (void)snprintf(ret_user, ADMIN_USER_SIZE, "another user");
}

int64_t admin_file_age_s(int file)
{
    struct stat status;
    struct timespec now;
    if (fstat(file, &status) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -errno;
    return now.tv_sec < status.st_mtim.tv_sec ? 0 : now.tv_sec - status.st_mtim.tv_sec;
}

int64_t admin_read(int file, void *buffer, uint64_t size, uint64_t offset)
{
    uint64_t done = 0;
    while (done < size) {
        ssize_t result = pread(file, (uint8_t *)buffer + done, size - done, (off_t)(offset + done));
        if (result < 0 && errno == EINTR)
            continue;
        if (result < 0)
            return -errno;
        if (result == 0)
            break;
        done += (uint64_t)result;
    }
    return (int64_t)done;
}

static int list_entries(DIR *stream, admin_list_each *each, void *context)
{
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (entry == NULL)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int result = each(context, entry->d_name);
        if (result != 0)
            return result;
    }
}

int admin_list(int directory, const char *name, admin_list_each *each, void *context)
{
    int handle = admin_open_directory(directory, name);
    if (handle < 0)
        return handle;
    DIR *stream = fdopendir(handle);
    if (stream == NULL) {
        int error = -errno;
        (void)close(handle);
        return error;
    }
    int result = list_entries(stream, each, context);
    (void)closedir(stream);
    return result;
}

int admin_lock_shared(int file)
{
    const struct timespec pause = {.tv_nsec = (long)LOCK_PAUSE_NS};
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(file, LOCK_SH | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -errno;
        (void)nanosleep(&pause, NULL);
    }
    return -EWOULDBLOCK;
}

uint64_t admin_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}
