/* Which text for Prometheus a client gets. */
#include "http_fixture.h"

#include <criterion/criterion.h>

/* `fields`: lines with their ends. Fed in two pieces, wherever they are cut. */
static bool wants_openmetrics(const char *target, const char *fields)
{
    static struct transcript transcript;
    char request[2048];
    int size =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", target, fields);
    bool wants = false;
    for (int cut = 0; cut <= size; cut++) {
        transcript_init(&transcript);
        transcript_feed(&transcript, (const uint8_t *)request, (size_t)cut);
        transcript_feed(&transcript, (const uint8_t *)request + cut, (size_t)(size - cut));
        cr_assert(!transcript.is_broken, "%s", transcript.text);
        bool wants_now = strstr(transcript.text, " openmetrics |") != NULL;
        cr_assert(cut == 0 || wants_now == wants, "%s cut at %d", fields, cut);
        wants = wants_now;
        transcript_deinit(&transcript);
    }
    return wants;
}

static bool accepts(const char *value)
{
    char fields[1024];
    (void)snprintf(fields, sizeof fields, "Accept: %s\r\n", value);
    return wants_openmetrics("/metrics", fields);
}

Test(http_accept, openmetrics_is_for_those_who_name_it)
{
    cr_assert(accepts("application/openmetrics-text"));
    cr_assert(accepts("Application/OpenMetrics-Text ; version=1.0.0; charset=utf-8"));
    cr_assert(accepts("application/openmetrics-text;version=\"1.0.0\""));
    cr_assert(accepts("text/html, application/openmetrics-text;q=0.001"));
    cr_assert(accepts("text/html;x=\"a,\\\"b;\",application/openmetrics-text"));
    cr_assert(!accepts(""));
    cr_assert(!accepts("*/*"));
    cr_assert(!accepts("application/*"));
    cr_assert(!accepts("text/plain"));
    cr_assert(!accepts("application/openmetrics-text2"));
    cr_assert(!accepts("application/json;x=\",application/openmetrics-text\""));
    cr_assert(!wants_openmetrics("/metrics", ""));
}

/* As Prometheus 2.42 and 3.0 ask. */
Test(http_accept, prometheus_gets_openmetrics)
{
    cr_assert(accepts("application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
                      "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
    cr_assert(accepts("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
                      "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"));
    cr_assert(!accepts("application/openmetrics-text; version=0.0.1,text/plain;q=0.5"),
              "that version is not what we have");
}

Test(http_accept, who_wants_plain_text_more_gets_it)
{
    cr_assert(accepts("application/openmetrics-text;q=0.5,text/plain;q=0.5"));
    cr_assert(accepts("application/openmetrics-text;q=0.501,text/plain;q=0.5"));
    cr_assert(!accepts("application/openmetrics-text;q=0.5,text/plain"));
    cr_assert(!accepts("application/openmetrics-text;q=0.5,text/*;q=0.6"));
    cr_assert(!accepts("application/openmetrics-text;q=0.5,*/*;q=1"));
    cr_assert(!accepts("application/openmetrics-text;q=0"));
    cr_assert(!accepts("application/openmetrics-text;q=0.000"));
}

Test(http_accept, a_wish_that_cannot_be_read_is_none)
{
    static const char *const bad[] = {"", "1.5", "2", ".5", "0.5555", "0,5", "-1", "x", "1.x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char value[128];
        (void)snprintf(value, sizeof value, "application/openmetrics-text;q=%s", bad[i]);
        cr_assert(!accepts(value), "%s", value);
    }
    cr_assert(!accepts(";,=,;;q"));
    cr_assert(!accepts("\"application/openmetrics-text"));
    cr_assert(!accepts("application/openmetrics-text;q"));
}

Test(http_accept, fields_add_up_and_other_routes_do_not_look)
{
    cr_assert(wants_openmetrics("/metrics", "Accept: text/plain;q=0.5\r\n"
                                            "Accept: application/openmetrics-text\r\n"));
    cr_assert(!wants_openmetrics("/metrics", "Accept: application/openmetrics-text;q=0.5\r\n"
                                             "aCCEPT: text/plain\r\n"));
    cr_assert(!wants_openmetrics("/key", "Accept: application/openmetrics-text\r\n"));
    cr_assert(!wants_openmetrics("/health", "Accept: application/openmetrics-text\r\n"));
}
