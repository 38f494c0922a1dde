package lookup

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A clock that differs from the API's by more than a minute is a warning with the
// number, once every response of ten seconds shows it; lookups go on.
func TestWrongClockIsAWarning(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration
		want  string
	}{
		{0, ""},
		{59 * time.Second, ""},
		{-59 * time.Second, ""},
		{3 * time.Minute, "clock is 3m0s ahead of the API's"},
		{-26 * time.Hour, "clock is 26h0m0s behind the API's"},
	} {
		spec(t, fmt.Sprint(c.ahead), func(e *env) {
			event := func() { e.event(fmt.Sprint(time.Now().UnixNano()), 5*time.Second, 1) }
			event()
			e.run(time.Second)
			if all := e.Conditions(); len(all) > 0 {
				e.t.Errorf("after one response: %v", all)
			}
			for range 12 {
				event()
				e.run(time.Second)
			}
			var got []string
			for _, cond := range e.Conditions() {
				if !cond.Reason.IsWarning() || cond.Reason != ClockWrong {
					e.t.Errorf("%v", cond)
				}
				got = append(got, cond.Detail)
			}
			text := strings.Join(got, "")
			if c.want == "" && text != "" || !strings.HasSuffix(strings.NewReplacer("2m59s", "3m0s", "25h59m59s", "26h0m0s", "26h0m1s", "26h0m0s").Replace(text), c.want) {
				e.t.Errorf("%q, want %q", text, c.want)
			}
			if e.run(5 * time.Second); len(e.completed) != 13 {
				e.t.Errorf("%d of 13 calls are enriched", len(e.completed))
			}
		}, func(cfg *Config) { cfg.API = datedAPI{cfg.API, c.ahead} })
	}
}

// keyFile is an API with a key file that can break.
type keyFile struct {
	API
	problem atomic.Pointer[error]
	hangs   atomic.Bool
	hung    chan struct{}
}

func (k *keyFile) CheckKey(time.Time) (bool, error) {
	if k.hangs.Load() {
		<-k.hung
	}
	if p := k.problem.Load(); p != nil {
		return false, *p
	}
	return false, nil
}

// A key file that cannot be read shows within seconds, also while nothing is looked
// up, and stops nothing. Nor does a file system that hangs.
func TestUnreadableKeyIsAWarning(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	file := &keyFile{hung: make(chan struct{})}
	problem := errors.New("file key is empty")
	spec(t, "", func(e *env) {
		e.run(time.Hour)
		for range 3 {
			file.problem.Store(&problem)
			e.run(maxIdle + time.Second)
			if all := e.Conditions(); len(all) != 1 || all[0].Reason != KeyUnreadable || !all[0].Reason.IsWarning() || !strings.Contains(all[0].Detail, "file key is empty") {
				e.t.Errorf("%v", all)
			}
			if got := gauge(e, e.Metrics.KeyUnreadable); got != 1 {
				e.t.Errorf("metric %v", got)
			}
			file.problem.Store(nil)
			e.run(maxIdle + time.Second)
			if all := e.Conditions(); len(all) > 0 || gauge(e, e.Metrics.KeyUnreadable) != 0 {
				e.t.Errorf("%v", all)
			}
		}
		if n := logs.Len(); n != 6 {
			e.t.Errorf("%d log lines, want one for each change: %v", n, logs.All())
		}
		file.hangs.Store(true)
		for i := range 100 {
			e.event(fmt.Sprint(i), 5*time.Second, 1)
			e.run(time.Second)
		}
		if len(e.completed) != 100 {
			e.t.Errorf("%d of 100 calls are enriched while the file system hangs", len(e.completed))
		}
		close(file.hung)
	}, func(cfg *Config) {
		file.API, cfg.API = cfg.API, file
		file.hung = make(chan struct{}) // of the bubble
		cfg.Log = zap.New(core)
	})
}
