package consumer

import (
	"sync"
	"time"
)

// inbox is where the lookups put finished results for the conductor.
type inbox struct {
	wait time.Duration // how long a result may wait for company

	mu      sync.Mutex
	results []result
	since   time.Time   // when the first of results came
	wake    func()      // called when the first of results has waited enough; nil: nobody sleeps
	timer   *time.Timer // will call wake
}

// put is called by the lookups' goroutine.
func (in *inbox) put(rs []result) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.results) == 0 {
		in.since = time.Now()
	}
	in.results = append(in.results, rs...)
	in.schedule()
}

// wakeWith has wake called once, when results have waited enough. The function
// it returns ends that.
func (in *inbox) wakeWith(wake func()) (stop func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.wake = wake
	in.schedule()
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.wake = nil
		if in.timer != nil {
			in.timer.Stop()
			in.timer = nil
		}
	}
}

func (in *inbox) schedule() {
	if in.wake != nil && in.timer == nil && len(in.results) > 0 {
		in.timer = time.AfterFunc(time.Until(in.since.Add(in.wait)), in.wake)
	}
}

// take empties the inbox; since is when the first of the results came.
func (in *inbox) take() (rs []result, since time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	rs, in.results = in.results, nil
	return rs, in.since
}
