package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"enricher/consumer/audit"
	"enricher/schemas"
)

// fakeRegistry is a script's schema registry.
type fakeRegistry struct {
	*srfake.Registry
	mode   atomic.Value // string
	server *http.Server
}

// schemaRegistry starts a schema registry and sets $REGISTRY to its URL. Arguments:
// its address, or a mode: "fails", "other" (the subject has another schema),
// "incompatible", "no-guid", "works", or "stops".
func schemaRegistry(ts *testscript.TestScript, _ bool, args []string) {
	value := ts.Value(fakeRegistry{}).(**fakeRegistry)
	if f := *value; f != nil && len(args) > 0 && !strings.Contains(args[0], ":") {
		if f.mode.Store(args[0]); args[0] == "stops" {
			ts.Check(f.server.Close())
		}
		return
	}
	address := "127.0.0.1:0"
	if len(args) > 0 {
		address = args[0]
	}
	l, err := net.Listen("tcp", address)
	ts.Check(err)
	f := &fakeRegistry{Registry: srfake.NewRegistry()}
	f.mode.Store("works")
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}
	go func() { _ = f.server.Serve(l) }()
	ts.Defer(func() { _ = f.server.Close() })
	*value = f
	ts.Setenv("REGISTRY", "http://"+l.Addr().String())
}

// guidMember is the GUID in a response, which is not its last member.
var guidMember = regexp.MustCompile(`"guid":"[^"]*",`)

// ServeHTTP implements http.Handler.
func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	respond := func(status int, body string) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
	switch mode := f.mode.Load(); {
	case mode == "fails":
		respond(503, `{"error_code":50001,"message":"Error in the backend"}`)
	case mode == "other" && strings.HasSuffix(r.URL.Path, "-value"):
		respond(404, `{"error_code":40403,"message":"Schema not found"}`)
	case mode == "incompatible" && strings.HasPrefix(r.URL.Path, "/compatibility/"):
		respond(200, `{"is_compatible":false,"messages":["TYPE_CHANGED at /call_id"]}`)
	case mode == "incompatible":
		respond(404, `{"error_code":40403,"message":"Schema not found"}`)
	case mode == "no-guid":
		full := httptest.NewRecorder()
		f.Handler().ServeHTTP(full, r)
		respond(full.Code, guidMember.ReplaceAllString(full.Body.String(), ""))
	default:
		f.Handler().ServeHTTP(w, r)
	}
}

// enrichedValues checks the values in the enriched topic: their number, how they name
// the schema in the registry, and what they are in a format. Equal calls must have
// equal values.
func enrichedValues(ts *testscript.TestScript, _ bool, args []string) {
	format, place, want := schemas.Format(args[0]), args[1], args[2]
	f := *ts.Value(fakeRegistry{}).(**fakeRegistry)
	stored, ok := f.GetSchema("call-enriched-value", 1)
	if !ok {
		ts.Fatalf("no schema is registered")
	}
	frame, header := "", "01"+strings.ReplaceAll(stored.GUID, "-", "")
	if format == schemas.Protobuf {
		header += "00"
	}
	if place == "payload" {
		index := []int(nil)
		if format == schemas.Protobuf {
			index = []int{0}
		}
		b, err := new(sr.ConfluentHeader).AppendEncode(nil, stored.ID, index)
		ts.Check(err)
		frame, header = string(b), ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records, err := audit.Read(ctx, []kgo.Opt{brokers(ts)}, "call-enriched")
	ts.Check(err)
	if fmt.Sprint(len(records)) != want {
		ts.Fatalf("%d records, want %s", len(records), want)
	}
	values := map[string][]byte{}
	for _, r := range records {
		got := ""
		for _, h := range r.Headers {
			if h.Key == schemas.HeaderValueSchemaID {
				got += hex.EncodeToString(h.Value)
			}
		}
		if got != header {
			ts.Fatalf("header %s, want %s", got, header)
		}
		value, ok := bytes.CutPrefix(r.Value, []byte(frame))
		start := map[schemas.Format]string{schemas.JSON: `{"schema_version":1,`, schemas.Avro: "\x02" + string(rune(2*len(r.Key))) + string(r.Key),
			schemas.Protobuf: "\x08\x01\x12" + string(rune(len(r.Key))) + string(r.Key)}[format]
		if !ok || !bytes.HasPrefix(value, []byte(start)) {
			ts.Fatalf("value %q, want frame %q and then %q", r.Value, frame, start)
		}
		if other, ok := values[string(r.Key)]; ok && !bytes.Equal(other, r.Value) {
			ts.Fatalf("two values of %s: %q, %q", r.Key, other, r.Value)
		}
		values[string(r.Key)] = r.Value
	}
}
