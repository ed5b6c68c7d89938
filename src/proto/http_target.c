/* A request's target (RFC 9112, section 3.2): its route and key. llhttp has seen to the characters;
 * this follows the form. */
#include "proto/http_internal.h"

#include <string.h>

#define VERSION_PREFIX "v1/"
#define VERSION_PREFIX_SIZE (sizeof VERSION_PREFIX - 1)

static const struct http_refusal bad_target = {400, "bad request target"};

/* Where the host of an absolute form ends; NULL: it is none. Whose host it is does not matter here,
 * but there must be one, without a user's name (RFC 9110, section 4.2). */
static const uint8_t *skip_host(const uint8_t *p, const uint8_t *end)
{
    static const char *const schemes[] = {"http://", "https://"};
    const uint8_t *host = NULL;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t size = strlen(schemes[i]);
        if ((size_t)(end - p) >= size && strncasecmp((const char *)p, schemes[i], size) == 0)
            host = p + size;
    }
    for (p = host; host != NULL && p < end && *p != '/' && *p != '?'; p++)
        if (*p == '@')
            return NULL;
    return p != host ? p : NULL;
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    uint8_t lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Decodes a path to `target`, which is not behind it. Returns where it ends, NULL: an escape is bad.
 */
static const uint8_t *decode_path(const uint8_t *p, const uint8_t *end, uint8_t *target,
                                  uint32_t *ret_size)
{
    uint32_t size = 0;
    for (; p < end && *p != '?' && *p != '#'; p++) {
        target[size] = *p;
        if (*p == '%') {
            int high = end - p > 2 ? hex_digit(p[1]) : -1;
            int low = high >= 0 ? hex_digit(p[2]) : -1;
            if (low < 0)
                return NULL;
            target[size] = (uint8_t)(high << 4 | low);
            p += 2;
        }
        size++;
    }
    *ret_size = size;
    return p;
}

/* Whether a parameter of the query has this name. */
static bool has_parameter(struct slice query, const char *name)
{
    bool has_it = false;
    while (query.size > 0) {
        struct slice parameter = http_cut(&query, '&');
        has_it |= http_equals(http_cut(&parameter, '='), name);
    }
    return has_it;
}

static bool begins(struct slice path, const char *prefix, size_t size)
{
    return path.size >= size && memcmp(path.data, prefix, size) == 0;
}

/* The decoded path decides, so that /%68ealth is /health, as RFC 3986, section 6.2.2.2, has it. */
static enum http_route route_of(struct slice path, struct slice *ret_key)
{
    static const char *const reserved[] = {
        [HTTP_ROUTE_HEALTH] = "health", [HTTP_ROUTE_LIVEZ] = "livez",
        [HTTP_ROUTE_READYZ] = "readyz", [HTTP_ROUTE_METRICS] = "metrics",
        [HTTP_ROUTE_UI] = "ui",
    };
    for (uint32_t route = HTTP_ROUTE_HEALTH; route <= HTTP_ROUTE_UI; route++)
        if (http_equals(path, reserved[route]))
            return (enum http_route)route;
    *ret_key = path;
    if (!begins(path, VERSION_PREFIX, VERSION_PREFIX_SIZE))
        return HTTP_ROUTE_JSON;
    if (!begins(path, HTTP_RAW_PREFIX, HTTP_RAW_PREFIX_SIZE))
        return HTTP_ROUTE_NONE;
    ret_key->data += HTTP_RAW_PREFIX_SIZE;
    ret_key->size -= HTTP_RAW_PREFIX_SIZE;
    return HTTP_ROUTE_RAW;
}

static bool is_allowed(const struct http_request *request)
{
    if (http_request_is_read(request))
        return true;
    if (!http_request_is_about_key(request) || request->method == HTTP_METHOD_OTHER)
        return false;
    return request->method != HTTP_METHOD_POST || request->route == HTTP_ROUTE_JSON;
}

/* A query of a key would be a part of the key in a client that has forgotten to escape it: what it
 * means to write would go to another key. */
static struct http_refusal check_key(struct slice key, bool has_query)
{
    if (key.size == 0)
        return (struct http_refusal){400, "key required"};
    if (key.size > MINIVAULT_KEY_SIZE_MAX)
        return (struct http_refusal){400, "key too long: it has more than 65535 bytes"};
    if (has_query)
        return (struct http_refusal){400, "unknown query: write a question mark in a key as %3F"};
    return (struct http_refusal){0, NULL};
}

struct http_refusal http_target_end(uint8_t *target, uint32_t *size, struct http_request *request)
{
    const uint8_t *p = target, *end = target + *size;
    *size = 0;
    if (end - p == 1 && *p == '*') /* the server as a whole */
        return (struct http_refusal){405, NULL};
    if (p < end && *p != '/')
        p = skip_host(p, end);
    if (p == NULL)
        return bad_target;
    p = decode_path(p < end && *p == '/' ? p + 1 : p, end, target, size);
    if (p == NULL)
        return (struct http_refusal){400, "bad percent-encoding in the key"};
    if (memchr(p, '#', (size_t)(end - p)) != NULL)
        return bad_target;
    struct slice key = {NULL, 0};
    request->route = route_of((struct slice){target, *size}, &key);
    bool has_query = p < end;
    if (has_query)
        request->is_verbose =
            has_parameter((struct slice){p + 1, (uint32_t)(end - p - 1)}, "verbose");
    if (request->route == HTTP_ROUTE_NONE)
        return (struct http_refusal){404, "no such route"};
    if (!is_allowed(request))
        return (struct http_refusal){405, NULL};
    if (!http_request_is_about_key(request))
        return (struct http_refusal){0, NULL};
    request->key = key;
    return check_key(key, has_query);
}
