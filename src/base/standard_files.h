/* The descriptors 0, 1 and 2: what prints, also deep in a library, writes to them by number. */
#ifndef MINIVAULT_BASE_STANDARD_FILES_H
#define MINIVAULT_BASE_STANDARD_FILES_H

/* Opens those of them that the caller has closed on /dev/null, so that no file or socket of ours
 * ever gets their number and a message lands in it. Before anything else is opened. Returns 0;
 * -errno: /dev/null cannot be opened, and the program must not go on. */
int standard_files_open(void);

#endif
