#include "node/config.h"

void config_init_defaults(struct config *config)
{
    *config = (struct config){
        .port = 3000,
        .data_path = "/data",
        .secret = "",
        .auth_mode = AUTH_NONE,
        .cache_size = 512 * MIB,
        .workers = 50,
        .durability = WAL_COMMIT,
        .scrub_rate = SCRUB_AUTO,
        .busy_poll_ns = 50 * NS_PER_US,
        .log_level = LOG_INFO,
        .pin = "auto",
        .connections_max = CONFIG_CONNECTIONS_MAX,
        .value_size_max = CONFIG_VALUE_SIZE_DEFAULT,
        .lock_wait_ns = 10 * NS_PER_S,
    };
}
