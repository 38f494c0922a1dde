package fetch_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// A response in another encoding is refused like a failure, with a message that
// says so: read as UTF-8, it would give different accounts the same name.
func TestOtherEncodingsAreRefused(t *testing.T) {
	const (
		ascii   = `{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","Caller_Account":"zhang","EndTime":5}}}`
		chinese = `{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","Caller_Account":"张","EndTime":5}}}`
	)
	encoded := func(name string) string { return strings.Replace(chinese, "张", name, 1) }
	wide := func(bom bool, littleEndian bool) string {
		var b strings.Builder
		text := ascii
		if bom {
			text = "\ufeff" + text
		}
		for _, u := range utf16.Encode([]rune(text)) {
			pair := []byte{byte(u >> 8), byte(u)}
			if littleEndian {
				pair[0], pair[1] = pair[1], pair[0]
			}
			b.Write(pair)
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		contentType, body string
		caller            string // "": refused
		message           string
	}{
		"UTF-8":                    {"application/json", chinese, "张", ""},
		"UTF-8, declared":          {"application/json; charset=UTF-8", chinese, "张", ""},
		"UTF-8, declared as utf8":  {`text/plain;charset="utf8"`, chinese, "张", ""},
		"ASCII":                    {"text/html; charset=US-ASCII", ascii, "zhang", ""},
		"UTF-8 with a BOM":         {"application/json", "\ufeff" + chinese, "张", ""},
		"no type":                  {"", chinese, "张", ""},
		"a type that is none":      {"json; ;;", chinese, "张", ""},
		"GBK":                      {"application/json", encoded("\xd5\xc5"), "", "not text in UTF-8"},
		"GB18030 of four bytes":    {"application/json", encoded("\x81\x39\xef\x30"), "", "not text in UTF-8"},
		"Big5":                     {"application/json", encoded("\xb1\x69"), "", "not text in UTF-8"},
		"Latin-1":                  {"application/json", encoded("Ren\xe9"), "", "not text in UTF-8"},
		"Shift JIS":                {"application/json", encoded("\x92\xa3"), "", "not text in UTF-8"},
		"UTF-8, cut within a rune": {"application/json", encoded("\xe5\xbc"), "", "not text in UTF-8"},
		"UTF-16LE":                 {"application/json", wide(false, true), "", "not text in UTF-8"},
		"UTF-16BE":                 {"application/json", wide(false, false), "", "not text in UTF-8"},
		"UTF-16LE with a BOM":      {"application/json", wide(true, true), "", "not text in UTF-8"},
		"UTF-16BE with a BOM":      {"application/json", wide(true, false), "", "not text in UTF-8"},
		"GBK, declared":            {"application/json; charset=GBK", encoded("\xd5\xc5"), "", `declared as "GBK"`},
		"GBK, declared, and ASCII": {"application/json; charset=gb2312", ascii, "", `declared as "gb2312"`},
		// 0xC4 0xA3 are two valid encodings of two different texts.
		"GBK that is UTF-8 as well": {"application/json;charset=gbk", encoded("\xc4\xa3"), "", `declared as "gbk"`},
		"Latin-1, declared":         {"text/html; charset=ISO-8859-1", ascii, "", `declared as "ISO-8859-1"`},
		"UTF-16, declared":          {"application/json; charset=utf-16", ascii, "", `declared as "utf-16"`},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, fetch.ClientConfig{Transport: respondWith(http.Header{"Content-Type": {c.contentType}}, c.body)})
			a := send(t, client, nil, "id")
			if c.caller != "" && (a.Verdict != fetch.Found || a.Record.Caller != c.caller) {
				t.Errorf("%+v, want the caller %s", a, c.caller)
			}
			if c.caller == "" && (a.Verdict != fetch.Retry || a.Label != "bad_body" || !strings.Contains(a.Message, c.message)) {
				t.Errorf("%+v, want a message with %s", a, c.message)
			}
		})
	}
}

// A content encoding that was not asked for is refused by its name.
func TestContentEncodingIsRefused(t *testing.T) {
	const record = `{"ErrorCode":0,"Response":{"CallRecord":{"CallId":"id","EndTime":5}}}`
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write([]byte(record))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		coding, body string
		verdict      fetch.Verdict
		message      string
	}{
		{"", record, fetch.Found, ""},
		{"identity", record, fetch.Found, ""},
		{"gzip", zipped.String(), fetch.Retry, `content encoding "gzip"`},
		{"br", record, fetch.Retry, `content encoding "br"`},
		{"", zipped.String(), fetch.Retry, "not text in UTF-8"},
	} {
		client := newClient(t, fetch.ClientConfig{Transport: respondWith(http.Header{"Content-Encoding": {c.coding}}, c.body)})
		if a := send(t, client, nil, "id"); a.Verdict != c.verdict || !strings.Contains(a.Message, c.message) {
			t.Errorf("%q: %+v", c.coding, a)
		}
	}
}

// respondWith returns a transport whose every response has this header and body.
func respondWith(header http.Header, body string) http.RoundTripper {
	return fetchtest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), header)
		_, _ = io.WriteString(w, body)
	}))
}
