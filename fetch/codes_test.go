package fetch_test

import (
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// families returns codes about the account or the UserSig, and codes that are in
// no table, of every range that the vendor uses.
func families() []int {
	known := map[int]fetch.Verdict{}
	for _, row := range fetch.Codes() {
		known[row.Code] = row.Verdict
	}
	all := []int{-1, 1, math.MaxInt32}
	for _, r := range []struct{ from, to, step int }{
		{60000, 60040, 1}, {70000, 70130, 1}, {70130, 71000, 29}, {101000, 101060, 7},
		{10000, 10100, 9}, {20000, 20100, 9}, {30000, 30020, 3}, {50000, 50010, 2}, {90000, 93000, 101}, {114000, 120010, 1201},
	} {
		for code := r.from; code < r.to; code += r.step {
			all = append(all, code)
		}
	}
	var about []int
	for _, code := range all {
		if v, ok := known[code]; !ok || v == fetch.AccountRejected {
			about = append(about, code)
		}
	}
	return about
}

// voidUserSig is an API that refuses the first UserSig that it saw with a code, once
// void is set.
type voidUserSig struct {
	*recorder
	code http.Handler
	void bool
}

func (a *voidUserSig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.void && r.URL.Query().Get("usersig") == a.sigs[0] {
		a.code.ServeHTTP(w, r)
		return
	}
	a.recorder.ServeHTTP(w, r)
}

// Whatever code says that a UserSig is void, it is replaced within a minute, and
// once: no code keeps a dead UserSig in use.
func TestNoCodeKeepsADeadUserSigInUse(t *testing.T) {
	for _, code := range families() {
		synctest.Test(t, func(t *testing.T) {
			refuse := fetchtest.New(fetchtest.Config{})
			refuse.SetOutage(fetchtest.Code(code))
			api := &voidUserSig{recorder: &recorder{Handler: fetchtest.New(fetchtest.Config{})}, code: refuse}
			c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
			if a := send(t, c, nil, "id"); a.Verdict != fetch.Found {
				t.Fatalf("%+v", a)
			}
			api.void = true
			refused := 0
			for range 70 {
				<-time.After(time.Second)
				if a := send(t, c, nil, "id"); a.Verdict != fetch.Found {
					refused++
				}
			}
			sigs := map[string]bool{}
			for _, s := range api.sigs {
				sigs[s] = true
			}
			if refused == 0 || refused > 60 || len(sigs) != 2 {
				t.Errorf("%d: refused for %d s, %d UserSigs", code, refused, len(sigs))
			}
		})
	}
}

// A call that alone draws a code makes requests sign once a minute at most.
func TestOneCallMakesFewUserSigs(t *testing.T) {
	for _, code := range []int{70403, 79999} {
		synctest.Test(t, func(t *testing.T) {
			sim := fetchtest.New(fetchtest.Config{})
			r := &recorder{Handler: sim}
			c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(r)})
			for range 180 {
				<-time.After(time.Second)
				sim.Script("bad", fetchtest.Code(code))
				send(t, c, nil, "bad")
				send(t, c, nil, "good")
			}
			sigs := map[string]bool{}
			for _, s := range r.sigs {
				sigs[s] = true
			}
			if len(sigs) > 4 {
				t.Errorf("%d: %d UserSigs in three minutes", code, len(sigs))
			}
		})
	}
}
