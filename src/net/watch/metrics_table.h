/* The table of the numbers that a shard counts once: a new one is one row here, and HEALTH, STATS,
 * /metrics and the table in docs/operations.md have it. This file is included where the rows
 * become an enum, names, or the copying of the numbers.
 *
 *     METRIC(id, name, type, over shards, place in HEALTH, source, help)
 *     COUNTED(id, name, type, over shards, place in HEALTH, help)
 *
 * id: METRICS_id. name: minivault_NAME at /metrics (a counter's has "_total" behind it), NAME in
 * STATS; what it ends in, _bytes or _seconds, is its unit. type: COUNTER, GAUGE, or HIDDEN: neither
 * at /metrics nor in STATS. Over shards: SUM, MAX or MIN, what STATS and HEALTH show of a node.
 * HEALTH: AT(position, key), MIB_AT(position, key) in MiB, or NOWHERE; positions are those of the
 * object's members, a new one has the next. source: of struct shard_report `report`; a COUNTED one
 * is counted where it happens (metrics_add). Rows keep their order: that of /metrics and STATS. */
METRIC(UPTIME, "uptime_seconds", GAUGE, MAX, AT(1, "uptime_seconds"), report->uptime_s,
       "Since the start of the process.")
METRIC(CONNECTIONS, "connections", GAUGE, SUM, AT(9, "connections"), report->connections,
       "Clients that are connected.")
METRIC(ACCEPTED, "connections_accepted", COUNTER, SUM, NOWHERE, report->connections_accepted,
       "Clients that have connected.")
METRIC(REFUSED, "connections_refused", COUNTER, SUM, AT(14, "connections_refused"),
       report->connections_refused, "Clients that were one too many.")
COUNTED(RECEIVED_BYTES, "received_bytes", COUNTER, SUM, NOWHERE, "From clients.")
COUNTED(SENT_BYTES, "sent_bytes", COUNTER, SUM, NOWHERE, "To clients.")
METRIC(LOG_COMMITS, "log_commits", COUNTER, SUM, AT(19, "log_batches"), report->store.wal.batches,
       "Writes of the log, each with many requests.")
METRIC(LOG_BYTES, "log_written_bytes", COUNTER, SUM, AT(20, "log_bytes_written"),
       report->store.wal.bytes_written, "Written to the log, with headers and padding.")
METRIC(LOG_SEGMENTS, "log_segments", GAUGE, SUM, AT(18, "log_segments"), report->store.wal.files,
       "Files of the log, spare ones too.")
METRIC(LOG_BACKLOG, "log_backlog_bytes", GAUGE, SUM, AT(42, "log_backlog_bytes"),
       report->store.mover.backlog_bytes,
       "Of the log, what should have been moved to segments by now.")
METRIC(KEYS, "keys", GAUGE, SUM, AT(8, "keys"), report->store.keys, "Keys that have a value.")
METRIC(TOMBSTONES, "tombstones", GAUGE, SUM, AT(30, "tombstones"), report->store.tombstones,
       "Deleted keys that still have a record.")
METRIC(INDEX_BYTES, "index_memory_bytes", GAUGE, SUM, NOWHERE, report->store.index_memory,
       "Memory of the index.")
METRIC(INDEX_LIMIT, "index_limit_bytes", GAUGE, MAX, NOWHERE, report->store.index_limit,
       "The part of -memory that the index may use, all shards together.")
METRIC(KEYS_REFUSED, "keys_refused", COUNTER, SUM, NOWHERE, report->store.keys_refused,
       "New keys that there was no memory for.")
METRIC(CACHE_HITS, "cache_hits", COUNTER, SUM, AT(15, "cache_hits"), report->store.get_hits,
       "Gets that the cache answered.")
METRIC(CACHE_MISSES, "cache_misses", COUNTER, SUM, AT(16, "cache_misses"), report->store.get_misses,
       "Gets that the cache did not answer.")
METRIC(CACHE_EVICTIONS, "cache_evictions", COUNTER, SUM, AT(17, "cache_evictions"),
       report->store.cache.evictions, "Values that left the cache for others.")
METRIC(CACHE_ENTRIES, "cache_entries", GAUGE, SUM, AT(2, "cache_items"),
       report->store.cache.entries, "Keys in the cache.")
METRIC(CACHE_BYTES, "cache_memory_bytes", GAUGE, SUM, MIB_AT(3, "cache_size_mb"),
       report->store.cache.memory, "Memory of the cache.")
METRIC(MOVER_JOBS, "mover_jobs", COUNTER, SUM, AT(34, "mover_jobs"), report->store.mover.jobs,
       "Jobs of moving and compaction.")
METRIC(MOVED_BYTES, "mover_moved_bytes", COUNTER, SUM, AT(35, "mover_bytes_moved"),
       report->store.mover.moved_bytes, "Records moved, from the log and by compaction.")
METRIC(COMPACTED_BYTES, "mover_compacted_bytes", COUNTER, SUM, AT(36, "mover_bytes_compacted"),
       report->store.mover.compacted_bytes, "Of these, by compaction.")
METRIC(MOVER_WRITTEN_BYTES, "mover_written_bytes", COUNTER, SUM, AT(37, "mover_bytes_written"),
       report->store.mover.written_bytes, "Written for that, with headers and padding.")
METRIC(PURGED, "tombstones_purged", COUNTER, SUM, AT(31, "tombstones_purged"),
       report->store.mover.purged_tombstones, "Deleted keys whose record has gone.")
METRIC(SEGMENTS, "segments", GAUGE, SUM, AT(38, "segments"), report->store.segments.segments,
       "Segments of the partitions.")
METRIC(SEGMENT_BYTES, "segments_size_bytes", GAUGE, SUM, AT(39, "segments_bytes"),
       report->store.segments.size_bytes, "Their files, up to their ends.")
METRIC(DEAD_BYTES, "segments_dead_bytes", GAUGE, SUM, AT(40, "segments_dead_bytes"),
       report->store.mover.dead_bytes, "Of these, what nobody needs, about.")
/* All shards see the same disk. */
METRIC(DISK_FREE, "disk_free_bytes", GAUGE, MAX, MIB_AT(21, "disk_free_mb"),
       report->store.disk_free, "Free on the file system.")
METRIC(DISK_TOTAL, "disk_size_bytes", GAUGE, MAX, MIB_AT(22, "disk_total_mb"),
       report->store.disk_total, "All of the file system.")
METRIC(SCRUB_BYTES, "scrub_read_bytes", COUNTER, SUM, AT(24, "scrub_bytes_read"),
       report->store.scrub.bytes, "Read in the background.")
/* Passes over the disk are as many, and the last is as old, as of the shard that is behind. */
METRIC(SCRUB_PASSES, "scrub_passes", COUNTER, MIN, AT(25, "scrub_passes"),
       report->store.scrub.passes, "Times that all was read.")
METRIC(SCRUB_AGE, "scrub_age_seconds", GAUGE, MAX, AT(26, "scrub_seconds_since_pass"),
       report->store.scrub.pass_age_s, "Since the last whole pass.")
METRIC(DAMAGED, "damaged_places", GAUGE, SUM, AT(27, "scrub_damaged_places"),
       report->store.findings.damaged, "Damage that can hurt somebody.")
METRIC(DAMAGED_DEAD, "damaged_dead_places", GAUGE, SUM, AT(28, "scrub_damaged_dead_places"),
       report->store.findings.damaged_dead, "Damage that can hurt nobody.")
METRIC(MENDED, "mended_places", COUNTER, SUM, AT(29, "scrub_mended_places"),
       report->store.findings.mended, "Damage that was written anew.")
METRIC(UNREADABLE, "unreadable_files", GAUGE, SUM, AT(43, "unreadable_files"),
       report->store.findings.unreadable, "Files that could not be opened or read.")
METRIC(PASSES, "ring_passes", COUNTER, SUM, NOWHERE, report->ring.passes, "Passes of the loop.")
METRIC(OVERFLOWS, "ring_overflows", COUNTER, SUM, NOWHERE, report->ring.overflows,
       "Times that completions were too many for it.")
METRIC(STARVED, "ring_starved_receives", COUNTER, SUM, NOWHERE, report->ring.starved,
       "Receives that found no buffer.")
COUNTED(SLOW, "slow_requests", COUNTER, SUM, NOWHERE, "Requests above -slowlog.")
/* All shards have the same log. */
METRIC(LOG_DROPPED, "messages_dropped", COUNTER, MAX, NOWHERE, report->messages_dropped,
       "Lines for the operator that stderr did not take.")
/* Of the shard that has not yet taken what the others have. */
METRIC(RELOAD_OK, "reload_ok", GAUGE, MIN, NOWHERE, report->is_reload_good,
       "1, or 0 when the last SIGHUP changed nothing because of a wrong file.")
METRIC(RELOAD_TIME, "reload_timestamp_seconds", GAUGE, MIN, NOWHERE, report->reload_s,
       "Unix time of the last SIGHUP that was taken, or of the start.")
/* Of HEALTH alone. Clients of the reference decode "goroutines": the threads of shards. */
METRIC(STORAGE_BYTES, "storage_bytes", HIDDEN, SUM, MIB_AT(4, "storage_size_mb"),
       report->store.wal.size_bytes + report->store.segments.size_bytes, "")
METRIC(SHARDS, "shards", HIDDEN, SUM, AT(5, "goroutines"), 1, "")
METRIC(MEMORY, "memory_bytes", HIDDEN, SUM, MIB_AT(6, "memory_mb"), report->memory, "")
METRIC(GETS, "gets", HIDDEN, SUM, AT(10, "gets"), report->gets, "")
METRIC(SETS, "sets", HIDDEN, SUM, AT(11, "sets"), report->sets, "")
METRIC(DELETES, "deletes", HIDDEN, SUM, AT(12, "deletes"), report->deletes, "")
METRIC(REQUESTS_REFUSED, "requests_refused", HIDDEN, SUM, AT(13, "requests_refused"),
       report->requests_refused, "")
METRIC(SCRUB_RATE, "scrub_rate_bytes", HIDDEN, SUM, AT(23, "scrub_rate_bytes"),
       report->store.scrub.rate, "")
METRIC(LOG_SEALED, "log_sealed_bytes", HIDDEN, SUM, AT(41, "log_sealed_bytes"),
       report->store.mover.log_sealed_bytes, "")
/* For the checks, and HEALTH's status. */
METRIC(PASSED, "passed_ns", HIDDEN, MIN, NOWHERE, report->now_ns, "")
METRIC(FAILED, "failed", HIDDEN, MAX, NOWHERE, report->failed != 0, "")
METRIC(ADMITS_SET, "admits_set", HIDDEN, MAX, NOWHERE, report->store.admits_set, "")
METRIC(ADMITS_KEY, "admits_key", HIDDEN, MAX, NOWHERE, report->store.admits_key, "")
METRIC(ADMITS_FILE, "admits_file", HIDDEN, MAX, NOWHERE, report->store.admits_file, "")
METRIC(DRAINING, "draining", HIDDEN, MAX, NOWHERE, report->is_draining, "")
METRIC(LOSS, "loss", HIDDEN, MAX, NOWHERE, report->store.findings.damaged > 0, "")

#undef METRIC
#undef COUNTED
