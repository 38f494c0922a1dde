package consumer

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// joining knows whether this member is joining its group anew: from its
// request to join until it has its assignment, which takes as long as the
// slowest member does.
//
// No transaction may begin meanwhile. The client would let it produce, hold its
// offsets back until the join is over, and then send them with the generation
// from before, which the broker refuses: readers would wait all that time for
// an abort.
//
// It is read off the balancer, like the membership.
type joining struct {
	kgo.GroupBalancer

	mu   sync.Mutex
	on   bool
	wake func() // called when it is over; nil: nobody waits
}

func (j *joining) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	j.set(true)
	return j.GroupBalancer.JoinGroupMetadata(topics, current, generation)
}

func (j *joining) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	parts, err := j.GroupBalancer.ParseSyncAssignment(assignment)
	if err == nil {
		j.set(false)
	}
	return parts, err
}

func (j *joining) set(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.on = on
	if !on && j.wake != nil {
		j.wake()
	}
}

func (j *joining) now() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.on
}

// wakeWith has wake called when a join is over. The function it returns ends
// that.
func (j *joining) wakeWith(wake func()) (stop func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wake = wake
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.wake = nil
	}
}
