/* The result of a run: for people, and for programs. */
#ifndef PERF_MVLOAD_REPORT_H
#define PERF_MVLOAD_REPORT_H

#include "config.h"
#include "worker.h"

/* Adds a thread's tally to the sum of all. */
void report_merge(struct tally *total, const struct tally *tally);

void report_text(const struct config *config, const struct tally *total);

void report_json(const struct config *config, const struct tally *total);

#endif
