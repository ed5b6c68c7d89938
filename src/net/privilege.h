/* After set-up nothing here needs a capability: whoever takes the process over gets none. */
#ifndef MINIVAULT_NET_PRIVILEGE_H
#define MINIVAULT_NET_PRIVILEGE_H

enum privilege_kept {
    PRIVILEGE_KEEP_NONE,
    PRIVILEGE_KEEP_BIND, /* CAP_NET_BIND_SERVICE, where it was: for ports below 1024 */
};

/* Drops every other capability of the calling thread for good: effective, permitted, inheritable,
 * ambient and, where it may, the bounding set; a program that it would execute can gain none either
 * (PR_SET_NO_NEW_PRIVS). Threads that it creates afterwards have none; those that exist keep
 * theirs, so each thread calls it, once its set-up is done. Root without capabilities is an
 * ordinary user to whom root's files belong: a data directory of another user is not accessible any
 * more, so this comes before the store is opened, and a failure shows at the start; what binding a
 * port needs is kept until that is done, and dropped by another call.
 *
 * Does nothing, successfully, when there was nothing to drop. Errors: those of capset(2) and
 * prctl(2); the process must not go on. */
int privilege_drop(enum privilege_kept kept);

#endif
