/* capabilities(7). By plain system calls: glibc has no wrappers, and libcap is not needed for two.
 */
#include "net/privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More than any kernel has: the sets are 64 bits wide. */
#define CAPABILITIES_MAX 64

/* Without CAP_SETPCAP the bounding set stays as it is. It only limits what executing a program may
 * gain, and no_new_privs alone already forbids that. */
static int drop_bounding(void)
{
    for (unsigned long i = 0; i < CAPABILITIES_MAX; i++) {
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL) /* the last one that this kernel knows was the one before */
            return 0;
        return errno == EPERM ? 0 : -errno;
    }
    return 0;
}

static int read_sets(struct __user_cap_data_struct *ret_sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &header, ret_sets) < 0 ? -errno : 0;
}

/* All but those of `kept`, of the first 32, that the thread has. */
static int drop_sets(uint32_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    int error = read_sets(sets);
    if (error < 0)
        return error;
    kept &= sets[0].permitted;
    memset(sets, 0, sizeof sets);
    sets[0].effective = kept;
    sets[0].permitted = kept;
    return syscall(SYS_capset, &header, sets) < 0 ? -errno : 0;
}

/* Whether the kernel agrees that nothing else is left. */
static int check(uint32_t kept)
{
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    int error = read_sets(sets);
    if (error < 0)
        return error;
    uint32_t left = 0;
    sets[0].effective &= ~kept;
    sets[0].permitted &= ~kept;
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        left |= sets[i].effective | sets[i].permitted | sets[i].inheritable;
    return left == 0 ? 0 : -EPERM;
}

int privilege_drop(enum privilege_kept kept)
{
    uint32_t mask = kept == PRIVILEGE_KEEP_BIND ? (uint32_t)1 << CAP_NET_BIND_SERVICE : 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    int error = drop_bounding();
    if (error == 0)
        error = drop_sets(mask);
    return error == 0 ? check(mask) : error;
}
