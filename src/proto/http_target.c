/* A request's target (RFC 9112, section 3.2): its route and key. llhttp has seen to the characters;
 * this follows the form.
 *
 *   START -/-> PATH                           origin form
 *   START -letter-> SCHEME -:-> SLASHES -> AUTHORITY -/-> PATH    absolute form
 *   START -*-> ASTERISK                       of the server as a whole
 *   PATH, AUTHORITY -?-> QUERY -&-> QUERY
 *   PATH -%-> HIGH -> LOW -> PATH             an escaped byte
 *   IGNORED                                   CONNECT's, and what is wrong */
#include "proto/http_internal.h"

#include "base/assert.h"

#include <string.h>

enum state { START, SCHEME, SLASHES, AUTHORITY, PATH, HIGH, LOW, QUERY, ASTERISK, IGNORED };

#define VERSION_PREFIX "v1/"
#define VERSION_PREFIX_SIZE (sizeof VERSION_PREFIX - 1)
#define VERBOSE "verbose"
#define VERBOSE_SIZE (sizeof VERBOSE - 1)
#define SCHEME_LONGEST "https"
#define DIFFERS UINT8_MAX

/* One byte more than any key needs, so that a longer one shows. */
#define PATH_SIZE_MAX (MINIVAULT_KEY_SIZE_MAX + HTTP_RAW_PREFIX_SIZE + 1)

void http_target_init(struct http_target *target, bool is_connect)
{
    *target = (struct http_target){.state = is_connect ? IGNORED : START};
}

static void refuse(struct http_target *target)
{
    target->is_bad = true;
    target->state = IGNORED;
}

static int append(struct http_target *target, struct http_text *text, struct http_budget *budget,
                  const void *data, uint32_t size)
{
    assert(text->size <= PATH_SIZE_MAX);
    if (size > PATH_SIZE_MAX - text->size) {
        target->is_too_long = true;
        size = (uint32_t)PATH_SIZE_MAX - text->size;
    }
    return http_text_append(text, budget, data, size);
}

/* ---- one byte ---- */

static void take_start(struct http_target *target, uint8_t byte)
{
    target->is_asterisk = byte == '*';
    target->state = byte == '/' ? PATH : byte == '*' ? ASTERISK : SCHEME;
    if (target->state == SCHEME)
        target->matched = (byte | 0x20) == SCHEME_LONGEST[0] ? 1 : DIFFERS;
}

static void take_scheme(struct http_target *target, uint8_t byte)
{
    size_t size = sizeof SCHEME_LONGEST - 1;
    if (byte == ':') {
        bool is_ours = target->matched == size || target->matched == size - 1;
        target->matched = 0;
        target->state = SLASHES;
        if (!is_ours)
            refuse(target);
        return;
    }
    bool is_next =
        target->matched < size && (byte | 0x20) == (uint8_t)SCHEME_LONGEST[target->matched];
    target->matched = is_next ? target->matched + 1 : DIFFERS;
}

static void begin_query(struct http_target *target)
{
    target->has_query = true;
    target->matched = 0;
    target->state = QUERY;
}

/* Whose host it is does not matter here, but there must be one, without a user's name (RFC 9110,
 * section 4.2). */
static void take_authority(struct http_target *target, uint8_t byte)
{
    bool is_empty = target->matched == 0;
    target->matched = 1;
    bool is_end = byte == '/' || byte == '?';
    if (byte == '@' || (is_end && is_empty))
        refuse(target);
    else if (byte == '/')
        target->state = PATH;
    else if (byte == '?')
        begin_query(target);
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    uint8_t lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static void end_name(struct http_target *target)
{
    if (target->matched == VERBOSE_SIZE)
        target->is_verbose = true;
    target->matched = DIFFERS;
}

/* In a parameter's name. */
static void take_query(struct http_target *target, uint8_t byte)
{
    if (byte == '#') {
        refuse(target);
    } else if (byte == '&') {
        end_name(target);
        target->matched = 0;
    } else if (byte == '=') {
        end_name(target);
    } else {
        bool is_next = target->matched < VERBOSE_SIZE && byte == (uint8_t)VERBOSE[target->matched];
        target->matched = is_next ? target->matched + 1 : DIFFERS;
    }
}

static int take_escape(struct http_target *target, struct http_text *text,
                       struct http_budget *budget, uint8_t byte)
{
    int digit = hex_digit(byte);
    if (digit < 0) {
        target->has_bad_escape = true;
        target->state = IGNORED;
        return 0;
    }
    if (target->state == HIGH) {
        target->high = (uint8_t)digit;
        target->state = LOW;
        return 0;
    }
    target->state = PATH;
    uint8_t decoded = (uint8_t)(target->high << 4 | digit);
    return append(target, text, budget, &decoded, 1);
}

/* What ends a run of bytes that stand for themselves in a path. */
static void take_path_end(struct http_target *target, uint8_t byte)
{
    if (byte == '%')
        target->state = HIGH;
    else if (byte == '?')
        begin_query(target);
    else
        refuse(target);
}

static void take_other(struct http_target *target, uint8_t byte)
{
    switch ((enum state)target->state) {
    case START:
        take_start(target, byte);
        break;
    case SCHEME:
        take_scheme(target, byte);
        break;
    case SLASHES: /* llhttp has seen that there are two */
        target->state = target->matched++ == 0 ? SLASHES : AUTHORITY;
        if (target->state == AUTHORITY)
            target->matched = 0;
        break;
    case AUTHORITY:
        take_authority(target, byte);
        break;
    case QUERY:
        take_query(target, byte);
        break;
    case ASTERISK:
        refuse(target);
        break;
    default:
        break;
    }
}

/* ---- the whole ---- */

static size_t plain_size(const char *data, size_t size)
{
    size_t plain = 0;
    while (plain < size && data[plain] != '%' && data[plain] != '?' && data[plain] != '#')
        plain++;
    return plain;
}

int http_target_take(struct http_target *target, struct http_text *text, struct http_budget *budget,
                     const char *data, size_t size)
{
    int result = 0;
    for (size_t i = 0; i < size && result == 0;) {
        if (target->state == HIGH || target->state == LOW) {
            result = take_escape(target, text, budget, (uint8_t)data[i++]);
            continue;
        }
        if (target->state != PATH) {
            take_other(target, (uint8_t)data[i++]);
            continue;
        }
        size_t plain = plain_size(data + i, size - i);
        result = append(target, text, budget, data + i, (uint32_t)plain);
        i += plain;
        if (i < size)
            take_path_end(target, (uint8_t)data[i++]);
    }
    return result;
}

static bool equals(struct slice path, const char *name)
{
    return path.size == strlen(name) && memcmp(path.data, name, path.size) == 0;
}

static bool begins(struct slice path, const char *prefix, size_t size)
{
    return path.size >= size && memcmp(path.data, prefix, size) == 0;
}

/* The decoded path decides, so that /%68ealth is /health, as RFC 3986, section 6.2.2.2, has it. */
static enum http_route route_of(struct slice path, struct slice *ret_key)
{
    static const struct {
        const char *name;
        enum http_route route;
    } reserved[] = {
        {"health", HTTP_ROUTE_HEALTH},   {"livez", HTTP_ROUTE_LIVEZ}, {"readyz", HTTP_ROUTE_READYZ},
        {"metrics", HTTP_ROUTE_METRICS}, {"ui", HTTP_ROUTE_UI},
    };
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (equals(path, reserved[i].name))
            return reserved[i].route;
    *ret_key = path;
    if (!begins(path, VERSION_PREFIX, VERSION_PREFIX_SIZE))
        return HTTP_ROUTE_JSON;
    if (!begins(path, HTTP_RAW_PREFIX, HTTP_RAW_PREFIX_SIZE))
        return HTTP_ROUTE_NONE;
    ret_key->data += HTTP_RAW_PREFIX_SIZE;
    ret_key->size -= HTTP_RAW_PREFIX_SIZE;
    return HTTP_ROUTE_RAW;
}

static bool is_allowed(enum http_route route, enum http_method method)
{
    switch (method) {
    case HTTP_METHOD_GET:
    case HTTP_METHOD_HEAD:
        return true;
    case HTTP_METHOD_PUT:
    case HTTP_METHOD_DELETE:
        return route == HTTP_ROUTE_JSON || route == HTTP_ROUTE_RAW;
    case HTTP_METHOD_POST:
        return route == HTTP_ROUTE_JSON;
    default:
        return false;
    }
}

/* A query of a key would be a part of the key in a client that has forgotten to escape it: what it
 * means to write would go to another key. */
static struct http_refusal check_key(const struct http_target *target, struct slice key)
{
    if (key.size == 0)
        return (struct http_refusal){400, "key required"};
    if (target->is_too_long || key.size > MINIVAULT_KEY_SIZE_MAX)
        return (struct http_refusal){400, "key too long: it has more than 65535 bytes"};
    if (target->has_query)
        return (struct http_refusal){400, "unknown query: write a question mark in a key as %3F"};
    return (struct http_refusal){0, NULL};
}

struct http_refusal http_target_end(const struct http_target *target, struct slice path,
                                    struct http_request *request)
{
    bool is_open = target->state == SCHEME || target->state == SLASHES ||
                   (target->state == AUTHORITY && target->matched == 0);
    if (target->is_bad || is_open)
        return (struct http_refusal){400, "bad request target"};
    if (target->has_bad_escape || target->state == HIGH || target->state == LOW)
        return (struct http_refusal){400, "bad percent-encoding in the key"};
    if (target->is_asterisk || target->state == IGNORED)
        return (struct http_refusal){405, NULL};
    struct slice key = {NULL, 0};
    request->route = route_of(path, &key);
    request->is_verbose =
        target->is_verbose || (target->state == QUERY && target->matched == VERBOSE_SIZE);
    if (request->route == HTTP_ROUTE_NONE)
        return (struct http_refusal){404, "no such route"};
    if (!is_allowed(request->route, request->method))
        return (struct http_refusal){405, NULL};
    if (request->route != HTTP_ROUTE_JSON && request->route != HTTP_ROUTE_RAW)
        return (struct http_refusal){0, NULL};
    request->key = key;
    return check_key(target, key);
}
