/* Memory that shows who may touch it: a page that faults when somebody touches it out of turn.
 *
 * Its owner fills it, then lends it: from then on it can be read and not written, by nobody. When
 * it is back, it can be neither read nor written until its owner takes it up again. So in one
 * thread a late read (by the borrower, after it gave it back) and an early write (by the owner, who
 * lent it) both end the test with SIGSEGV. */
#ifndef TESTS_SUPPORT_LENT_PAGE_H
#define TESTS_SUPPORT_LENT_PAGE_H

#include "base/assert.h"

#include <stdint.h>
#include <sys/mman.h>

#define LENT_PAGE_SIZE 4096u

static inline void lent_page_protect(uint8_t *page, int protection)
{
    int result = mprotect(page, LENT_PAGE_SIZE, protection);
    assert(result == 0);
}

static inline uint8_t *lent_page_open(void)
{
    uint8_t *page = mmap(NULL, LENT_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(page != MAP_FAILED);
    return page;
}

static inline void lent_page_close(uint8_t *page)
{
    (void)munmap(page, LENT_PAGE_SIZE);
}

/* The owner may read and write. */
static inline void lent_page_take_up(uint8_t *page)
{
    lent_page_protect(page, PROT_READ | PROT_WRITE);
}

/* Anybody may read, nobody may write. */
static inline void lent_page_lend(uint8_t *page)
{
    lent_page_protect(page, PROT_READ);
}

/* Nobody may do anything. */
static inline void lent_page_give_back(uint8_t *page)
{
    lent_page_protect(page, PROT_NONE);
}

#endif
