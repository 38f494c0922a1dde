package fetch_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// Every code of the error table, and one that is not in it, gets the verdict that
// is written down here a second time.
func TestEveryCodeHasItsVerdict(t *testing.T) {
	want := map[string]fetch.Verdict{"other": fetch.Unknown}
	for class, codes := range map[fetch.Verdict][]int{
		fetch.NotYet:    {101050},
		fetch.Retry:     {101001, 60008, 60013, 60014, 70169, 70500, 10002, 20004, 20005, 30006, 40006, 50004, 90992, 90994, 90995, 91000, 70001, 70052},
		fetch.Throttled: {60007, 60011, 60018, 60019},
		fetch.AccountRejected: {60002, 60004, 60005, 60006, 60009, 60010, 60012, 60016, 60017, 60020, 60021, 60025, 60026, 60027, 60028, 70002, 70003, 70005, 70009,
			70013, 70014, 70015, 70016, 70017, 70018, 70019, 70020, 70050, 70051, 70107, 70114, 70403},
		fetch.Rejected: {60003, 60015, 101002, 70402},
	} {
		for _, c := range codes {
			want[fmt.Sprint(c)] = class
		}
	}
	rows := fetch.Codes()
	if len(rows) != len(want)-1 {
		t.Errorf("the table has %d rows, want %d", len(rows), len(want)-1)
	}
	for _, row := range append(rows, fetch.CodeRow{Code: 424242}) {
		t.Run(fmt.Sprint(row.Code), func(t *testing.T) {
			api := fetchtest.New(fetchtest.Config{})
			c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
			api.Script("id", fetchtest.CodeInfo(row.Code, "what the API has to say"))
			a := send(t, c, api, "id")
			if a.Code != row.Code || a.Verdict != want[a.Label] {
				t.Errorf("%+v", a)
			}
			for _, part := range []string{fmt.Sprint(row.Code), row.Name, row.Meaning, "what the API has to say"} {
				if !strings.Contains(a.Message, part) {
					t.Errorf("message %q lacks %q", a.Message, part)
				}
			}
			if row.Name != "" && (row.Meaning == "" || row.Source == "") {
				t.Error("the row lacks meaning or source")
			}
			if (row.Code == 70050) != (a.Lockout == time.Minute) {
				t.Errorf("locked out for %v", a.Lockout)
			}
			if next := send(t, c, api, "id"); next.Verdict != fetch.Found {
				t.Errorf("afterwards: %+v", next)
			}
		})
	}
}

// An HTTP status outside 200–299 decides, even if the body holds a record.
func TestEveryStatusHasItsVerdict(t *testing.T) {
	verdict := func(status int) fetch.Verdict {
		switch {
		case status == 429:
			return fetch.Throttled
		case status == 408, status == 425, status >= 500:
			return fetch.Retry
		case status == 401, status == 403, status == 404, status < 400:
			return fetch.AccountRejected
		}
		return fetch.Unknown
	}
	status := 0
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","EndTime":5}}}`))
	}))})
	for status = 200; status < 600; status++ {
		a := send(t, c, nil, "id")
		if status < 300 {
			if a.Verdict != fetch.Found {
				t.Errorf("%d: %+v", status, a)
			}
			continue
		}
		if a.Verdict != verdict(status) || a.Code != status || !strings.Contains(a.Message, fmt.Sprintf("HTTP %d", status)) {
			t.Errorf("%d: %+v, want %v", status, a, verdict(status))
		}
	}
}

func TestRetryAfterIsReadAndCapped(t *testing.T) {
	api := fetchtest.New(fetchtest.Config{})
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "100000": time.Minute, "-5": 0, "soon": 0, "99999999999999999999999": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  time.Minute,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		api.Script("id", fetchtest.TooManyRequests(header))
		if a := send(t, c, api, "id"); a.Verdict != fetch.Throttled || a.RetryAfter != want {
			t.Errorf("Retry-After %q: %v, want %v", header, a.RetryAfter, want)
		}
	}
}

// Every kind of body that comes with HTTP 200.
func TestEveryKindOfBodyHasItsVerdict(t *testing.T) {
	const record = `"CallId":"id","Caller_Account":"a","StartTime":1,"EndTime":5`
	for name, c := range map[string]struct {
		body    string
		verdict fetch.Verdict
		label   string
		message string
	}{
		"record":            {`{"ActionStatus":"OK","ErrorCode":0,"RequestId":"r","Response":{"CallRecord":{` + record + `}}}`, fetch.Found, "0", ""},
		"code as text":      {`{"ErrorCode":"0","Response":{"CallRecord":{` + record + `}}}`, fetch.Found, "0", ""},
		"not yet as text":   {`{"ErrorCode":"101050","ErrorInfo":404,"Response":""}`, fetch.NotYet, "101050", "404"},
		"no record":         {`{"ErrorCode":0,"Response":{}}`, fetch.Retry, "no_record", "no record"},
		"empty record":      {`{"ErrorCode":0,"Response":{"CallRecord":{}}}`, fetch.Retry, "no_record", "no record"},
		"null response":     {`{"ErrorCode":0,"Response":null}`, fetch.Retry, "no_record", "no record"},
		"another call":      {`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"ID","EndTime":5}}}`, fetch.Retry, "wrong_call_id", "another"},
		"not ended":         {`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id"}}}`, fetch.NotYet, "not_ended", "end time"},
		"ended before 1970": {`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","EndTime":-1}}}`, fetch.NotYet, "not_ended", "end time"},
		"empty":             {"", fetch.Retry, "bad_body", "empty"},
		"HTML":              {"<html></html>", fetch.Retry, "bad_body", "HTML"},
		"text":              {"upstream timed out", fetch.Retry, "bad_body", "not a JSON object"},
		"list":              {"[]", fetch.Retry, "bad_body", "not a JSON object"},
		"no code":           {"{}", fetch.Retry, "bad_body", "no ErrorCode"},
		"code no number":    {`{"ErrorCode":"none"}`, fetch.Retry, "bad_body", "not an integer"},
		"times no numbers":  {`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","EndTime":"noon"}}}`, fetch.Retry, "bad_body", "cannot be decoded"},
		"two documents":     {`{"ErrorCode":0}{}`, fetch.Retry, "bad_body", "cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			api := fetchtest.New(fetchtest.Config{})
			api.SetOutage(fetchtest.Body(name, "application/json", c.body))
			client := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
			a := send(t, client, api, "id")
			if a.Verdict != c.verdict || a.Label != c.label || !strings.Contains(a.Message, c.message) {
				t.Errorf("%+v", a)
			}
			if a.NotEnded != (c.label == "not_ended") {
				t.Errorf("NotEnded is %v", a.NotEnded)
			}
		})
	}
}

// Everything that can break on the way over TCP costs one request, and the next
// one succeeds.
func TestTransportFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault fetchtest.Fault
		label string
	}{
		"cut body":       {fetchtest.CutBody(), "bad_body"},
		"reset":          {fetchtest.Reset(), "network"},
		"50 MB":          {fetchtest.Huge(50 << 20), "bad_body"},
		"just too large": {fetchtest.Huge(1<<20 + 1), "bad_body"},
		"bad gateway":    {fetchtest.BadGateway(), "http_5xx"},
		"redirect":       {fetchtest.Redirect("/elsewhere"), "http_3xx"},
	} {
		t.Run(name, func(t *testing.T) {
			api, server := listen(t, fetchtest.Config{})
			client := newClient(t, fetch.ClientConfig{BaseURL: server.URL})
			api.Script("id", c.fault)
			if a := send(t, client, api, "id"); a.Label != c.label {
				t.Errorf("%+v", a)
			}
			if a := send(t, client, api, "id"); a.Verdict != fetch.Found {
				t.Errorf("afterwards: %+v", a)
			}
			if api.Requests() != 2 || api.Strays() != 0 {
				t.Errorf("%d requests, %d of them elsewhere", api.Requests(), api.Strays())
			}
		})
	}
	t.Run("exactly 1 MiB", func(t *testing.T) {
		api, server := listen(t, fetchtest.Config{})
		client := newClient(t, fetch.ClientConfig{BaseURL: server.URL})
		api.Script("id", fetchtest.Huge(1<<20))
		if a := send(t, client, api, "id"); a.Label != "no_record" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("connection refused", func(t *testing.T) {
		_, server := listen(t, fetchtest.Config{})
		client := newClient(t, fetch.ClientConfig{BaseURL: server.URL})
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		if a := client.Lookup(t.Context(), "id", nil); a.Verdict != fetch.Retry || a.Label != "network" || !strings.Contains(a.Message, "connecting") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("TLS with an unknown authority", func(t *testing.T) {
		api := fetchtest.New(fetchtest.Config{})
		server := httptest.NewUnstartedServer(api)
		server.Config.ErrorLog = nil
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		server.StartTLS()
		defer server.Close()
		client := newClient(t, fetch.ClientConfig{BaseURL: server.URL})
		if a := send(t, client, api, "id"); a.Verdict != fetch.Retry || a.Label != "network" || !strings.Contains(a.Message, "certificate") {
			t.Errorf("%+v", a)
		}
		if api.Requests() != 0 {
			t.Error("a request went to a server with an unknown certificate")
		}
	})
}

// A request ends at its timeout or with its context, and the message says how far
// it came.
func TestTimeoutAndCancellation(t *testing.T) {
	for phase, fault := range map[string]fetchtest.Fault{"waiting": fetchtest.Hang(), "reading": fetchtest.HangInBody()} {
		synctest.Test(t, func(t *testing.T) {
			api := fetchtest.New(fetchtest.Config{})
			api.SetOutage(fault)
			c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api), Timeout: 4 * time.Second})
			start := time.Now()
			a := send(t, c, api, "id")
			if a.Label != "timeout" || !strings.Contains(a.Message, "4s") || !strings.Contains(a.Message, phase) {
				t.Errorf("%+v", a)
			}
			if took := time.Since(start); took != 4*time.Second {
				t.Errorf("took %v", took)
			}

			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the process ends"))
			defer cancel()
			if a := sendContext(t, ctx, c, api, "id"); a.Label != "cancelled" || !strings.Contains(a.Message, "the process ends") {
				t.Errorf("cancelled: %+v", a)
			}
			if a := sendContext(t, ctx, c, api, "id"); a.Label != "cancelled" || api.Requests() != 2 {
				t.Errorf("cancelled before: %+v, %d requests", a, api.Requests())
			}
		})
	}
}

// A request that its observer forbids is not made.
func TestForbiddenRequestIsNotMade(t *testing.T) {
	api := fetchtest.New(fetchtest.Config{})
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
	o := &follower{forbidden: true}
	a := c.Lookup(t.Context(), "id", o)
	if a.Verdict != fetch.Retry || a.Label != "cancelled" || o.saw() != "begin" || api.Requests() != 0 {
		t.Errorf("%+v, observer saw %q, %d requests", a, o.saw(), api.Requests())
	}
}

// A request that is given up leaves nothing behind that the kernel would go on
// sending: the connection is reset, not closed.
func TestAbandonedConnectionIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			ended <- err
			return
		}
		giveUp()
		_, err = io.Copy(io.Discard, conn)
		ended <- err
	}()
	c := newClient(t, fetch.ClientConfig{BaseURL: "http://" + l.Addr().String()})
	if a := c.Lookup(ctx, "id", nil); a.Label != "cancelled" {
		t.Errorf("%+v", a)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

// TestConnectionsAreReused: a hundred lookups at a time, twenty times, over a
// hundred connections; failures that are read to their end cost none.
func TestConnectionsAreReused(t *testing.T) {
	api, server := listen(t, fetchtest.Config{Latency: func(string) time.Duration { return time.Millisecond }, Misbehave: []fetchtest.Chance{
		{Percent: 10, Fault: fetchtest.BadGateway()}, {Percent: 10, Fault: fetchtest.HTML()}, {Percent: 10, Fault: fetchtest.Named("call_backend_busy")},
	}})
	c := newClient(t, fetch.ClientConfig{BaseURL: server.URL, Concurrency: 100})
	for round := range 20 {
		var wait sync.WaitGroup
		for i := range 100 {
			wait.Go(func() { c.Lookup(t.Context(), fmt.Sprintf("%d-%d", round, i), nil) })
		}
		wait.Wait()
	}
	// Under load there are a few more: net/http gives up a connection if the response
	// came, but its writer does not finish for 50 ms.
	if n := server.Connections(); n > 110 {
		t.Errorf("%d connections for 2,000 lookups, 100 at a time", n)
	}
	if api.Requests() != 2000 {
		t.Errorf("%d requests", api.Requests())
	}
	// If the server closes idle connections, no request is sent twice.
	server.DropIdle()
	for i := range 200 {
		send(t, c, api, fmt.Sprint("again-", i))
	}
	if n := api.Requests(); n > 2200 || n < 2100 {
		t.Errorf("%d requests, want 2,200 at most and nearly that", n)
	}
}

func TestAnyCallIDArrivesUnchanged(t *testing.T) {
	api := fetchtest.New(fetchtest.Config{})
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
	for _, id := range []string{"a", `with "quotes" and \`, "ümläut", "line\nbreak", "</script>", "12345678901234567890", strings.Repeat("x", 256)} {
		if a := send(t, c, api, id); a.Verdict != fetch.Found || a.Record.CallID != id || api.RequestsFor(id) != 1 {
			t.Errorf("%q: %+v", id, a)
		}
	}
}

// NewClient reports everything that is wrong at once, and quotes nothing of a URL
// that contains a secret.
func TestConfigErrors(t *testing.T) {
	_, err := fetch.NewClient(fetch.ClientConfig{BaseURL: "http://user:pw@example.com/?usersig=SECRET#x", Timeout: 2 * time.Second, Concurrency: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"plain HTTP", "password", "query", "fragment", "SDKAppID", "secret key", "3s", "concurrency"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not mentioned in:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "pw@") {
		t.Errorf("the URL is quoted: %v", err)
	}
	for base, ok := range map[string]bool{
		"https://example.com": true, "https://example.com/prefix/": true, "http://127.0.0.1:8080": true, "http://[::1]:1": true, "http://localhost": true,
		"": false, "example.com": false, "ftp://example.com": false, "http://example.com": false, "https://": false, "https://example.com" + fetchtest.Path: false,
	} {
		_, err := fetch.NewClient(fetch.ClientConfig{BaseURL: base, SDKAppID: 1, Key: demoKey(t)})
		if (err == nil) != ok {
			t.Errorf("%q: %v", base, err)
		}
	}
	for _, name := range fetch.Regions() {
		base, err := fetch.RegionURL(name)
		if err != nil || !strings.HasPrefix(base, "https://") {
			t.Errorf("%s: %s, %v", name, base, err)
		}
	}
	if _, err := fetch.RegionURL("mars"); err == nil || !strings.Contains(err.Error(), "singapore") {
		t.Errorf("an unknown region: %v", err)
	}
}

// No body makes the client panic, or return a response that breaks the rules of
// checkResponse.
func FuzzResponse(f *testing.F) {
	f.Add(200, []byte(`{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","EndTime":5}}}`))
	f.Add(200, []byte(`{"ErrorCode":"101050","ErrorInfo":null}`))
	f.Add(502, []byte("<html>"))
	f.Add(302, []byte{})
	key := demoKey(f)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 999 {
			return
		}
		c := newClient(t, fetch.ClientConfig{Key: key, Transport: fetchtest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}))})
		a := send(t, c, nil, "id")
		if a.Verdict == fetch.Found && (a.Record.CallID != "id" || a.Record.End <= 0) {
			t.Errorf("found %+v", a.Record)
		}
	})
}
