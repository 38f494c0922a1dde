package fetch_test

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tencentyun/tls-sig-api-v2-golang/tencentyun"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// The vendor's module, in the version in use, signs what the published algorithm
// says. Its tokens may differ in bytes, the signature inside may not.
func TestSignatureMatchesPublishedAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(time.Unix(1795405622, 0)))
		text, err := tencentyun.GenUserSig(fetchtest.DemoSDKAppID, fetchtest.DemoKey, fetchtest.DemoIdentifier, 86400)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := openUserSig(t, text).Sig, "b3b/xvkLwa840X1mD1yI3rJuLP/RcXoIJ0B3wr60ljo="; got != want {
			t.Errorf("TLS.sig is %s, want %s", got, want)
		}
	})
}

type userSig struct {
	Sig        string `json:"TLS.sig"`
	Identifier string `json:"TLS.identifier"`
	AppID      int64  `json:"TLS.sdkappid"`
	Time       int64  `json:"TLS.time"`
	Expire     int64  `json:"TLS.expire"`
}

func openUserSig(t *testing.T, text string) userSig {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.NewReplacer("*", "+", "-", "/", "_", "=").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var u userSig
	if err := json.Unmarshal(b, &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// recorder records the UserSig of each request.
type recorder struct {
	http.Handler
	mu   sync.Mutex
	sigs []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.sigs = append(r.sigs, req.URL.Query().Get("usersig"))
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

func (r *recorder) last() string { return r.sigs[len(r.sigs)-1] }

// A UserSig is reused for days and replaced long before it expires; the vendor's
// module verifies each.
func TestUserSigIsReusedAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fetchtest.New(fetchtest.Config{})
		r := &recorder{Handler: api}
		c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(r)})
		sigs := map[string]time.Time{}
		for range 30 * 24 {
			if a := send(t, c, api, "id"); a.Verdict != fetch.Found {
				t.Fatal(a.Message)
			}
			if _, known := sigs[r.last()]; !known {
				sigs[r.last()] = time.Now()
			}
			u := openUserSig(t, r.last())
			if err := tencentyun.VerifyUserSig(fetchtest.DemoSDKAppID, fetchtest.DemoKey, fetchtest.DemoIdentifier, r.last(), time.Now()); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(time.Unix(u.Time+u.Expire, 0)); left < 3*24*time.Hour || u.Expire < 24*3600 {
				t.Fatalf("in use with %v left of %v s", left, u.Expire)
			}
			<-time.After(time.Hour)
		}
		if len(sigs) < 5 || len(sigs) > 12 {
			t.Errorf("%d UserSigs in 30 days", len(sigs))
		}
	})
}

func TestConcurrentRequestsSignOnce(t *testing.T) {
	r := &recorder{Handler: fetchtest.New(fetchtest.Config{})}
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(r)})
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Go(func() { c.Lookup(t.Context(), fmt.Sprint(i), nil) })
	}
	wait.Wait()
	for _, s := range r.sigs {
		if s != r.sigs[0] {
			t.Fatal("several UserSigs")
		}
	}
}

// On 70001 the next request gets a new UserSig; if that is called expired, too,
// the account is rejected.
func TestExpiredUserSigIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fetchtest.New(fetchtest.Config{})
		c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
		expect := func(want fetch.Verdict) {
			t.Helper()
			<-time.After(time.Second) // a UserSig of the same second is the same
			if a := send(t, c, api, "id"); a.Verdict != want {
				t.Errorf("%v (%s), want %v", a.Verdict, a.Message, want)
			}
		}
		expect(fetch.Found)
		api.Revoke()
		expect(fetch.Retry)
		expect(fetch.Found)
		api.Revoke() // again, after one was accepted
		expect(fetch.Retry)
		expect(fetch.Found)
		api.SetOutage(fetchtest.Named("usersig_expired"))
		expect(fetch.Retry)
		expect(fetch.AccountRejected)
		expect(fetch.AccountRejected)
		api.ClearOutage()
		expect(fetch.Found)
		api.Revoke()
		expect(fetch.Retry)
		expect(fetch.Found)
	})
}

// A rotated key is used as soon as the file has it. A file that is missing or
// empty for a while changes nothing.
func TestKeyFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff" + fetchtest.DemoKey + "\r\n")
	synctest.Test(t, func(t *testing.T) {
		key, err := fetch.KeyFromFile(path)
		if err != nil {
			t.Fatal(err)
		}
		api := fetchtest.New(fetchtest.Config{})
		c := newClient(t, fetch.ClientConfig{Key: key, Transport: fetchtest.Transport(api)})
		expect := func(want fetch.Verdict) fetch.Response {
			t.Helper()
			<-time.After(2 * time.Second)
			a := send(t, c, api, "id")
			if a.Verdict != want {
				t.Errorf("%v (%s), want %v", a.Verdict, a.Message, want)
			}
			return a
		}
		expect(fetch.Found)
		if changed, _ := c.CheckKey(time.Now()); changed {
			t.Error("changed?")
		}
		const other = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
		api.SetKey(other)
		expect(fetch.AccountRejected)
		write("")
		if a := expect(fetch.AccountRejected); !strings.Contains(a.Message, "is empty") {
			t.Errorf("the message does not mention the file: %s", a.Message)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		expect(fetch.AccountRejected)
		if changed, _ := c.CheckKey(time.Now()); changed {
			t.Error("a missing file is no change")
		}
		write(other)
		<-time.After(2 * time.Second)
		for _, want := range []bool{true, false} {
			if changed, problem := c.CheckKey(time.Now()); changed != want || problem != nil {
				t.Errorf("changed: %v, want %v, once; %v", changed, want, problem)
			}
		}
		expect(fetch.Found)
	})
	for text, why := range map[string]string{"": "empty", " \n": "empty", "x": "shorter", strings.Repeat("x", 11): "shorter", "two words in it": "white space", strings.Repeat("x", 5000): "4096"} {
		write(text)
		if _, err := fetch.KeyFromFile(path); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if _, err := fetch.KeyFromFile(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a file that is not there")
	}
}

// The simulator verifies app and identifier as the API does.
func TestWrongIdentityIsRejected(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  fetch.ClientConfig
		code string
	}{
		"app":        {fetch.ClientConfig{SDKAppID: 5}, "bad_app"},
		"identifier": {fetch.ClientConfig{Identifier: "another"}, "not_administrator"},
	} {
		api := fetchtest.New(fetchtest.Config{})
		c.cfg.Transport = fetchtest.Transport(api)
		if a := send(t, newClient(t, c.cfg), api, "id"); a.Verdict != fetch.AccountRejected || a.Code != fetch.CodeByName(c.code).Code {
			t.Errorf("%s: %+v", name, a)
		}
	}
}
