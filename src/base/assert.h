/* Assertions for our own errors, on in every build.
 *
 * The network, the disk, a peer and a user get error paths instead. */
#ifndef MINIVAULT_BASE_ASSERT_H
#define MINIVAULT_BASE_ASSERT_H

#ifdef NDEBUG
#error "minivault ships with its assertions: do not define NDEBUG"
#endif

#include <assert.h>

#endif
