// Go's own HTTP client, keep-alive: client PORT. Says what went wrong, else how much it did.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var base string
var requests, connections int64

// One connection at a time, kept.
type client struct {
	http.Client
}

func newClient() *client {
	return &client{http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxConnsPerHost: 1, ExpectContinueTimeout: 10 * time.Second}}}
}

type reply struct {
	status int
	length int64
	kind   string
	body   []byte
}

// A body of unknown length goes in chunks.
func (c *client) ask(method, path string, body io.Reader, expect bool) (reply, error) {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return reply{}, err
	}
	if expect {
		request.Header.Set("Expect", "100-continue")
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			atomic.AddInt64(&connections, 1)
		}
	}}
	response, err := c.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	atomic.AddInt64(&requests, 1)
	kind := response.Header.Get("Content-Type")
	return reply{response.StatusCode, response.ContentLength, kind, data}, err
}

func (c *client) expect(status int, method, path string, body io.Reader) (reply, error) {
	got, err := c.ask(method, path, body, false)
	if err == nil && got.status != status {
		err = fmt.Errorf("%s %s: %d %.200q, expected %d", method, path, got.status, got.body, status)
	}
	return got, err
}

// Puts, reads back, and compares the text of the value as it was sent.
func (c *client) roundTrip(path, text string) error {
	if _, err := c.expect(200, "PUT", path, strings.NewReader(`{"value": `+text+`}`)); err != nil {
		return err
	}
	got, err := c.expect(200, "GET", path, nil)
	if wanted := `{"success":true,"data":` + text + `}`; err == nil && string(got.body) != wanted {
		err = fmt.Errorf("GET %s: %.200q, expected %s", path, got.body, wanted)
	}
	return err
}

func (c *client) json() error {
	for _, text := range []string{`"hello"`, "9007199254740993", "1e400", "null", "[]", `"grüße"`} {
		if err := c.roundTrip("/go/json", text); err != nil {
			return err
		}
	}
	head, err := c.expect(200, "HEAD", "/go/json", nil)
	if err != nil || head.length <= 0 || len(head.body) > 0 {
		return fmt.Errorf("HEAD: %v, length %d, body %q", err, head.length, head.body)
	}
	for _, step := range []struct {
		status             int
		method, body, text string
	}{
		{400, "PUT", "{", `{"success":false,"error":"invalid json"}`},
		{400, "PUT", "{}", `{"success":false,"error":"missing value field"}`},
		{200, "POST", `{"value":1}`, `{"success":true}`},
		{200, "DELETE", "", `{"success":true}`},
		{404, "GET", "", `{"success":false,"error":"not found"}`},
	} {
		got, err := c.expect(step.status, step.method, "/go/json", strings.NewReader(step.body))
		if err != nil || string(got.body) != step.text {
			return fmt.Errorf("%s: %v, %q", step.method, err, got.body)
		}
	}
	return nil
}

func (c *client) rawValue(value []byte, chunked, expect bool) error {
	path := fmt.Sprintf("/v1/kv/go/%d", len(value))
	var body io.Reader = bytes.NewReader(value)
	if chunked {
		body = io.MultiReader(body)
	}
	put, err := c.ask("PUT", path, body, expect)
	if err != nil || put.status != 204 {
		return fmt.Errorf("PUT %s: %v, %d %.200q", path, err, put.status, put.body)
	}
	got, err := c.expect(200, "GET", path, nil)
	if err != nil || !bytes.Equal(got.body, value) || got.kind != "application/octet-stream" {
		return fmt.Errorf("GET %s: %v, %s, %d bytes", path, err, got.kind, len(got.body))
	}
	head, err := c.expect(200, "HEAD", path, nil)
	if err != nil || head.length != int64(len(value)) {
		return fmt.Errorf("HEAD %s: %v, length %d", path, err, head.length)
	}
	if _, err = c.expect(204, "DELETE", path, nil); err != nil {
		return err
	}
	_, err = c.expect(404, "GET", path, nil)
	return err
}

func (c *client) raw() error {
	large := make([]byte, 1<<20)
	for i := range large {
		large[i] = byte(i * 7 % 251)
	}
	for _, value := range [][]byte{{}, large[:256], large} {
		for mode := 0; mode < 4; mode++ {
			if err := c.rawValue(value, mode&1 != 0, mode&2 != 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *client) many(name int) error {
	for number := 0; number < 200; number++ {
		path := fmt.Sprintf("/go/%d/%d", name, number)
		if err := c.roundTrip(path, fmt.Sprint(number)); err != nil {
			return err
		}
		if _, err := c.expect(200, "DELETE", path, nil); err != nil {
			return err
		}
	}
	return nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	base = "http://127.0.0.1:" + os.Args[1]
	first := newClient()
	must(first.json())
	must(first.raw())
	const clients = 8
	var group sync.WaitGroup
	errors := make([]error, clients)
	for i := 0; i < clients; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			errors[i] = newClient().many(i)
		}(i)
	}
	group.Wait()
	for _, err := range errors {
		must(err)
	}
	if connections != 1+clients {
		must(fmt.Errorf("%d connections were opened, not %d: they were not kept", connections, 1+clients))
	}
	fmt.Printf("%d requests, %d connections\n", requests, connections)
}
