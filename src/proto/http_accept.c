/* What a client takes for metrics: the field Accept (RFC 9110, section 12.5.1). Of the two texts
 * that there are it gets OpenMetrics when it names that and wants it no less than plain text, which
 * it gets otherwise: so does whoever says nothing, or what nobody understands. */
#include "proto/http_internal.h"

#define QUALITY_MAX 1000u /* of 1: as many digits as it may have */

/* What comes before the separator, or all of it; commas in quotes separate nothing. */
static struct slice take_part(struct slice *rest, uint8_t separator)
{
    struct slice part = {rest->data, 0};
    bool is_quoted = false;
    while (part.size < rest->size && (is_quoted || rest->data[part.size] != separator)) {
        uint8_t byte = rest->data[part.size++];
        if (byte == '"')
            is_quoted = !is_quoted;
        else if (byte == '\\' && is_quoted && part.size < rest->size)
            part.size++;
    }
    uint32_t used = part.size + (part.size < rest->size);
    rest->data += used;
    rest->size -= used;
    return http_trim(part);
}

/* Section 12.4.2. What is none is no wish at all: 0. */
static uint16_t quality_of(struct slice value)
{
    uint32_t quality = 0;
    uint32_t unit = QUALITY_MAX;
    if (value.size == 0 || value.size > sizeof "0.000" - 1)
        return 0;
    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        if (i == 1 && byte == '.')
            continue;
        if (i == 1 || byte < '0' || byte > '9')
            return 0;
        quality += unit * (byte - '0');
        unit /= 10;
    }
    return quality <= QUALITY_MAX ? (uint16_t)quality : 0;
}

static struct slice unquote(struct slice value)
{
    bool is_quoted = value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"';
    return is_quoted ? (struct slice){value.data + 1, value.size - 2} : value;
}

static void take_range(struct http_fields *fields, struct slice range)
{
    struct slice type = take_part(&range, ';');
    uint16_t quality = QUALITY_MAX;
    bool is_ours = true; /* its version */
    while (range.size > 0) {
        struct slice value = take_part(&range, ';');
        struct slice name = take_part(&value, '=');
        if (http_is_word(name, "q"))
            quality = quality_of(http_trim(value));
        else if (http_is_word(name, "version"))
            is_ours = http_is_word(unquote(http_trim(value)), "1.0.0");
    }
    uint16_t *best = NULL;
    if (http_is_word(type, "application/openmetrics-text") && is_ours)
        best = &fields->openmetrics_quality;
    else if (http_is_word(type, "text/plain") || http_is_word(type, "text/*") ||
             http_is_word(type, "*/*"))
        best = &fields->text_quality;
    if (best != NULL && *best < quality)
        *best = quality;
}

void http_accept_take(struct http_fields *fields, struct slice value)
{
    while (value.size > 0)
        take_range(fields, take_part(&value, ','));
}
