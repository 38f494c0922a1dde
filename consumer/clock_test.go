package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The clock of a bubble stops while a goroutine of it waits for a mutex, because
// synctest cannot know that only the bubble would unlock it. If the goroutine that
// has the mutex waits for time to pass, the clock stops for good.
//
// The Kafka client has two such mutexes: it holds one while it ends a transaction,
// and another while it commits, and both may retry after a pause. A rebalance at
// that moment waits for them. This is a limit of the test, not a deadlock: outside a
// bubble the client continues after the pause.
var clientMutexes = regexp.MustCompile(`^github\.com/twmb/franz-go/pkg/kgo\.(NewGroupTransactSession\.func|\(\*groupConsumer\)\.joinAndSync)`)

// bubble runs a scenario in virtual time and watches its clock from outside.
type bubble struct {
	name atomic.Pointer[string] // as stacks have it, such as "synctest bubble 7"
	beat atomic.Int64           // seconds of virtual time
	done chan struct{}
}

func runInBubble(t *testing.T, scenario func(*testing.T)) *bubble {
	b := &bubble{done: make(chan struct{})}
	go func() {
		defer close(b.done)
		synctest.Test(t, func(t *testing.T) {
			name := regexp.MustCompile(`synctest bubble \d+`).FindString(stacks(false))
			b.name.Store(&name)
			ctx, cancel := context.WithCancel(context.Background())
			var beats sync.WaitGroup
			beats.Go(func() {
				for ctx.Err() == nil {
					select {
					case <-time.After(time.Second):
						b.beat.Add(1)
					case <-ctx.Done():
					}
				}
			})
			t.Cleanup(func() { // after those of the scenario
				cancel()
				beats.Wait()
			})
			scenario(t)
		})
	}()
	return b
}

// errClientMutex reports that the clock stopped because of the Kafka client.
var errClientMutex = errors.New("the clock stopped in a mutex of the Kafka client")

// wait waits until the scenario has ended. It returns an error if the clock does not
// move for a while of real time, even on a slow machine.
func (b *bubble) wait(limit time.Duration) error {
	for last := int64(-1); ; {
		select {
		case <-b.done:
			return nil
		case <-time.After(limit):
		}
		beat := b.beat.Load()
		if beat == last {
			return whyStopped(stacks(true), *b.name.Load())
		}
		last = beat
	}
}

// whyStopped explains from the stacks of all goroutines why the clock of a bubble
// stopped: errClientMutex, or an error with the stacks of the bubble.
func whyStopped(all, bubble string) error {
	var inBubble, others []string
	client := 0
	for g := range strings.SplitSeq(strings.TrimSpace(all), "\n\n") {
		header, _, _ := strings.Cut(g, "\n")
		if !strings.Contains(header, bubble+"]") && !strings.Contains(header, bubble+",") {
			continue
		}
		inBubble = append(inBubble, g)
		frames := callers(g)
		switch {
		case inClientCallback(frames):
			others = append(others, header+": the Kafka client waits for a callback")
		case strings.Contains(header, "(durable)"):
		case strings.Contains(header, "Mutex.") && len(frames) > 0 && clientMutexes.MatchString(frames[0]):
			client++
		default:
			others = append(others, header)
		}
	}
	if client > 0 && len(others) == 0 {
		return errClientMutex
	}
	return fmt.Errorf("the clock of %s stopped because of\n%s\nall goroutines of the bubble:\n%s",
		bubble, strings.Join(others, "\n"), strings.Join(inBubble, "\n\n"))
}

// callers are the functions of a goroutine, the innermost first, without those of
// the runtime and of package sync.
func callers(goroutine string) []string {
	var frames []string
	for line := range strings.Lines(goroutine) {
		if !strings.HasPrefix(line, "\t") && !regexp.MustCompile(`^(goroutine \d|created by |runtime\.|sync\.|internal/)`).MatchString(line) {
			frames = append(frames, line)
		}
	}
	return frames
}

// inClientCallback reports whether the Kafka client called the program and waits
// for it. Then a mutex of the client is not released for a reason of our own.
func inClientCallback(frames []string) bool {
	ours := false
	for _, f := range frames {
		ours = ours || strings.HasPrefix(f, "enricher/") && !strings.HasPrefix(f, "enricher/consumer_test.")
		if ours && strings.HasPrefix(f, "github.com/twmb/franz-go/pkg/kgo.") {
			return true
		}
	}
	return false
}

func stacks(all bool) string {
	b := make([]byte, 1<<10)
	for {
		if n := runtime.Stack(b, all); n < len(b) {
			return string(b[:n])
		}
		b = make([]byte, 4*len(b))
	}
}

// TestStoppedClockIsExplained distinguishes a mutex of the Kafka client from one of
// ours.
func TestStoppedClockIsExplained(t *testing.T) {
	const client = `goroutine 2 [sync.Mutex.Lock, synctest bubble 7]:
internal/sync.runtime_SemacquireMutex(0x4, 0x1, 0x7)
	/go/src/runtime/sema.go:95 +0x25
sync.(*Mutex).Lock(...)
	/go/src/sync/mutex.go:46
github.com/twmb/franz-go/pkg/kgo.NewGroupTransactSession.func1.1({0x1, 0x3}, 0x3, 0x3)
	/kgo/txn.go:95 +0x71
created by github.com/twmb/franz-go/pkg/kgo.(*assignRevokeSession).revoke in goroutine 1
	/kgo/consumer_group.go:1030 +0x72`
	const end = `goroutine 3 [select (durable), synctest bubble 7]:
github.com/twmb/franz-go/pkg/kgo.(*Client).waitTries(0x3, {0x1, 0x3}, 0x1)
	/kgo/client.go:1 +0x1
github.com/twmb/franz-go/pkg/kgo.(*GroupTransactSession).End(0x3, {0x1, 0x3}, 0x1)
	/kgo/txn.go:1 +0x1
enricher/consumer/session.(*Session).Commit(0x3)
	/consumer/session/txn.go:1 +0x1`
	const callback = `goroutine 4 [chan receive (durable), synctest bubble 7]:
enricher/consumer/session.(*Session).onRevoked(0x3)
	/consumer/session/assignments.go:1 +0x1
github.com/twmb/franz-go/pkg/kgo.(*groupConsumer).revoke(0x3)
	/kgo/consumer_group.go:887 +0x8d2`
	const ours = `goroutine 5 [sync.Mutex.Lock, synctest bubble 7]:
sync.(*Mutex).Lock(...)
	/go/src/sync/mutex.go:46
enricher/consumer.(*Consumer).Ready(0x3)
	/consumer/ready.go:1 +0x1`
	for name, c := range map[string]struct {
		goroutines []string
		client     bool
	}{
		"the client's mutex":             {goroutines: []string{client, end}, client: true},
		"a mutex of ours":                {goroutines: []string{ours, end}},
		"the client's and one of ours":   {goroutines: []string{client, ours, end}},
		"the client waits for our code":  {goroutines: []string{client, callback}},
		"no mutex":                       {goroutines: []string{end}},
		"a mutex, but in another bubble": {goroutines: []string{strings.ReplaceAll(client, "bubble 7", "bubble 77"), end}},
	} {
		err := whyStopped(strings.Join(c.goroutines, "\n\n"), "synctest bubble 7")
		if errors.Is(err, errClientMutex) != c.client {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStoppedClockIsNoticed stops the clock of a bubble with a mutex of ours.
func TestStoppedClockIsNoticed(t *testing.T) {
	var mu sync.Mutex
	mu.Lock()
	b := runInBubble(t, func(*testing.T) {
		mu.Lock()
		<-time.After(time.Minute)
	})
	err := b.wait(100 * time.Millisecond)
	mu.Unlock()
	if err == nil || errors.Is(err, errClientMutex) || !strings.Contains(err.Error(), "TestStoppedClockIsNoticed") {
		t.Errorf("the clock stopped, and the error is %v", err)
	}
	if err := b.wait(time.Minute); err != nil {
		t.Error(err)
	}
}
