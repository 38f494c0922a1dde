package consumer

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/fetch/lookup"
	"enricher/fetch/lookup/limitertest"
)

// process is an instance with a backlog and the group's client in it.
type process struct {
	*limitertest.Instance
	*membership
	loop  *limitertest.Loop
	rng   *rand.Rand
	group *coordinator

	cutUntil   time.Time // nothing passes to or from Kafka before
	topicSize  int32     // as its metadata has it
	id         string
	generation int32
	owned      map[string][]int32
	isLeader   bool
	silent     bool  // it states no surplus and leaves with one
	joins      int   // how many it began
	revoking   bool  // until an open transaction has ended it does not join again
	lastErr    error // of the heartbeats meanwhile
}

// startProcess starts an instance that joins the group.
func startProcess(loop *limitertest.Loop, group *coordinator, r *groupRun) *process {
	l := lookup.NewLimiter(true)
	p := &process{
		Instance: limitertest.NewInstance(loop, r.net, l), membership: newMembership(r.limit, l, loop.Now, zap.NewNop()),
		loop: loop, rng: r.net.Rand, group: group, topicSize: group.partitions, generation: -1, silent: r.silent,
	}
	p.Lease = p.Valid
	p.join()
	p.heartbeat()
	return p
}

// request passes do to the coordinator, and what do returns by reply back to the
// process.
func (p *process) request(do func(reply func(func()))) {
	pass := func(f func()) {
		at := p.loop.Now()
		if at.Before(p.cutUntil) {
			at = p.cutUntil
		}
		p.loop.At(at.Add(limitertest.Between(p.rng, time.Millisecond, 50*time.Millisecond)), f)
	}
	p.At(p.loop.Now(), func() {
		pass(func() { do(func(response func()) { pass(func() { p.At(p.loop.Now(), response) }) }) })
	})
}

func (p *process) join() {
	p.joins++
	p.revoking = false
	n := p.joins
	metadata := p.JoinGroupMetadata([]string{simTopic}, maps.Clone(p.owned), p.generation)
	if p.silent {
		metadata, _ = memberNote{}.addTo(p.GroupBalancer.JoinGroupMetadata([]string{simTopic}, maps.Clone(p.owned), p.generation))
	}
	p.request(func(reply func(func())) {
		p.group.joinGroup(p.id, metadata, func(r joinResponse) {
			reply(func() {
				if n == p.joins {
					p.onJoined(r)
				}
			})
		})
	})
}

func (p *process) onJoined(r joinResponse) {
	if r.err != nil {
		p.lose(r.err)
		return
	}
	p.id, p.generation, p.isLeader = r.id, r.generation, r.leader == r.id
	var plan []kmsg.SyncGroupRequestGroupAssignment
	if p.isLeader {
		b, _, err := p.MemberBalancer(r.members)
		if err != nil {
			panic(err)
		}
		b.(kgo.GroupMemberBalancerInfo).SetBalanceInfo(kgo.BalanceInfo{Generation: r.generation})
		into, err := b.(kgo.GroupMemberBalancerOrError).BalanceOrError(map[string]int32{simTopic: p.topicSize})
		if err != nil {
			panic(err)
		}
		plan = into.IntoSyncAssignment()
	}
	n, sent := p.joins, p.loop.Now()
	p.request(func(reply func(func())) {
		p.group.syncGroup(p.id, p.generation, plan, func(assignment []byte, err error) {
			reply(func() {
				if n == p.joins {
					p.onSynced(sent, assignment, err)
				}
			})
		})
	})
}

func (p *process) onSynced(sent time.Time, assignment []byte, err error) {
	switch {
	case err == nil:
	case errors.Is(err, kerr.RebalanceInProgress):
		p.join()
		return
	default:
		p.lose(err)
		return
	}
	p.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.SyncGroup), kgo.BrokerE2E{ReadWait: p.loop.Now().Sub(sent)})
	held, err := p.ParseSyncAssignment(assignment)
	if err != nil {
		panic(err)
	}
	p.Wake()
	revoked := slices.ContainsFunc(p.owned[simTopic], func(q int32) bool { return !slices.Contains(held[simTopic], q) })
	p.owned = held
	if revoked || p.isLeader && p.topicSize != p.group.partitions {
		p.joinLater()
	}
}

// joinLater joins again once an open transaction has ended. Until then, as in the
// Kafka client, heartbeats go on whatever the responses are.
func (p *process) joinLater() {
	if p.revoking {
		return
	}
	p.revoking, p.lastErr = true, nil
	n := p.joins
	wait := limitertest.Between(p.rng, 0, 500*time.Millisecond)
	if p.rng.IntN(20) == 0 {
		wait = limitertest.Between(p.rng, 0, 40*time.Second)
	}
	p.At(p.loop.Now().Add(wait), func() {
		if n != p.joins {
			return
		}
		if p.lastErr != nil && !errors.Is(p.lastErr, kerr.RebalanceInProgress) {
			p.lose(p.lastErr)
		} else {
			p.join()
		}
	})
}

// lose gives everything up and joins again.
func (p *process) lose(err error) {
	p.owned = nil
	if errors.Is(err, kerr.UnknownMemberID) {
		p.id, p.generation = "", -1
	}
	p.join()
}

// heartbeat is the client's, every second, with one of our own behind it; during
// a join it is our own.
func (p *process) heartbeat() {
	again := func() { p.At(p.loop.Now().Add(time.Second), p.heartbeat) }
	if p.joining() || p.id == "" {
		if p.id != "" {
			p.ownHeartbeat()
		}
		again()
		return
	}
	sent, n := p.loop.Now(), p.joins
	p.request(func(reply func(func())) {
		err := p.group.check(p.id, p.generation)
		reply(func() {
			p.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Heartbeat), kgo.BrokerE2E{ReadWait: p.loop.Now().Sub(sent)})
			<-p.beat
			p.ownHeartbeat()
			switch {
			case n != p.joins || err == nil:
			case p.revoking:
				p.lastErr = err
			case errors.Is(err, kerr.RebalanceInProgress):
				p.joinLater()
			default:
				p.lose(err)
			}
			again()
		})
	})
}

func (p *process) ownHeartbeat() {
	sent, id, generation := p.loop.Now(), p.id, p.generation
	p.request(func(reply func(func())) {
		err := p.group.check(id, generation)
		reply(func() { p.onHeartbeat(sent, generation, err) })
	})
}

// hears reports whether the process hears from Kafka.
func (p *process) hears() bool { return !p.Frozen() && p.loop.Now().After(p.cutUntil) }

// leave ends the process in order.
func (p *process) leave() {
	p.At(p.loop.Now(), func() {
		wait := p.close()
		if p.silent {
			wait = 0
		}
		p.At(p.loop.Now().Add(wait), func() {
			id := p.id
			p.id = ""
			p.joins++
			p.request(func(func(func())) { p.group.remove(id) })
		})
	})
}

// seeTopic reads the topic's metadata; a leader that finds more partitions joins
// again.
func (p *process) seeTopic() {
	p.At(p.loop.Now(), func() {
		grown := p.topicSize != p.group.partitions
		p.topicSize = p.group.partitions
		if grown && p.isLeader && !p.joining() {
			p.joinLater()
		}
	})
}
