package consumer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/consumer/progress"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// TestOneRequestPerCallID feeds 10,000 events of 1,000 calls, shuffled over the
// partitions. They cost 1,000 requests and those that the retry policy repeats.
func TestOneRequestPerCallID(t *testing.T) {
	for _, late := range []int{0, 200} {
		t.Run(fmt.Sprintf("%d late", late), func(t *testing.T) {
			t.Parallel()
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				for i := range late {
					e.API.Script("c"+strconv.Itoa(i*5), fetchtest.Named("record_not_found")) // once
				}
				var ids []string
				for i := range 10_000 {
					ids = append(ids, "c"+strconv.Itoa(i%1000))
				}
				rand.New(rand.NewPCG(1, 2)).Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
				for i, id := range ids {
					e.FeedCall(int32(i%partitions), id)
				}
				e.Start("a", func(c *consumer.Config) { c.APIRate = 0 })
				e.Await(time.Minute)
				e.Check()
				if got, want := e.API.Requests(), 1000+late; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			})
		})
	}
}

// An outage fails every request. resume bounds how long the program may pause
// after it: a throttled one waits as long as the response says, or its own longest
// pause.
type outage struct {
	fault  fetchtest.Fault
	resume time.Duration
}

var outages = map[string]outage{
	"502":          {fault: fetchtest.BadGateway()},
	"reset":        {fault: fetchtest.Reset()},
	"hang":         {fault: fetchtest.Hang()},
	"backend busy": {fault: fetchtest.Named("call_backend_busy")},
	// The pace has fallen to one request per second, and recovers by 3 % per second.
	"rate limited":      {fault: fetchtest.Named("rate_limited"), resume: 3 * time.Minute},
	"too many requests": {fault: fetchtest.TooManyRequests("7"), resume: 7 * time.Second},
	"unknown code":      {fault: fetchtest.Code(999999)},
	"cut body":          {fault: fetchtest.CutBody()},
}

func TestAPIOutage(t *testing.T) {
	for name, o := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inVirtualTime(t, fetchtest.Config{}, apiOutage(o))
		})
	}
}

func TestKafkaAPIOutage(t *testing.T) { onKafka(t, fetchtest.Config{}, apiOutage(outages["502"])) }

func TestKafkaAPIThrottles(t *testing.T) {
	onKafka(t, fetchtest.Config{}, apiOutage(outages["too many requests"]))
}

// apiOutage keeps events waiting while the API fails. Afterwards they are all
// enriched, at full rate after the next probe.
func apiOutage(o outage) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		e.API.SetOutage(o.fault)
		i := e.Start("a")
		e.FeedCalls("c", 1000)
		e.pause(20*time.Minute, shareDelay+20*time.Second) // far longer than any window
		if n := len(e.Outputs()); n != 0 {
			t.Fatalf("%d outputs during the outage: %v", n, e.Audit())
		}
		if why := i.NotReady(); !strings.Contains(why, "API") {
			t.Errorf("ready, or for another reason not: %q", why)
		}
		e.API.ClearOutage()
		recovered := time.Now()
		e.Await(time.Minute + o.resume)
		e.Check()
		// A probe goes out every 5 s, and 1,000 calls take 5 s at full rate.
		limit := o.resume + 5*time.Second + 5500*time.Millisecond + e.choose(0, 2*time.Second)
		arrivals := e.API.Arrivals()
		if last := arrivals[len(arrivals)-1].Sub(recovered); last > limit {
			t.Errorf("the last of 1,000 requests came %v after the recovery, want at most %v", last, limit)
		}
		if n := e.API.MaxInAnyWindow(time.Second); n > 200 && !e.real { // in real time, one request may overtake another
			t.Errorf("%d requests in one second", n)
		}
		if len(i.Ready()) > 0 {
			t.Errorf("not ready afterwards: %v", i.Ready())
		}
	}
}

func TestWrongKey(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, wrongKey) }
func TestKafkaWrongKey(t *testing.T) { onKafka(t, fetchtest.Config{}, wrongKey) }

// wrongKey costs no event: readiness reports what to check, and lookups resume once
// the key is right.
func wrongKey(t *testing.T, e *env) {
	e.API.SetKey("0123456789abcdef")
	i := e.Start("a")
	e.FeedCalls("c", 300)
	e.pause(30*time.Minute, shareDelay+5*time.Second)
	if n := len(e.Outputs()); n != 0 {
		t.Fatalf("%d outputs with a wrong key", n)
	}
	if n := e.API.Requests(); n > 400 {
		t.Errorf("%d requests with a wrong key in 30 minutes", n)
	}
	if why := i.NotReady(); !strings.Contains(why, "key") {
		t.Errorf("readiness does not say what to check: %q", why)
	}
	e.API.SetKey(fetchtest.DemoKey)
	e.Await(2 * time.Minute)
	e.Check()
}

func TestNothingFoundPausesLookups(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, nothingFoundPausesLookups)
}

func TestKafkaNothingFoundPausesLookups(t *testing.T) {
	onKafka(t, fetchtest.Config{}, nothingFoundPausesLookups)
}

// nothingFoundPausesLookups of an API that has no record at all, as in a wrong
// region, after at most MaxConsecutiveDeadLetters events.
func nothingFoundPausesLookups(t *testing.T, e *env) {
	e.API.SetOutage(fetchtest.Named("record_not_found"))
	i := e.Start("a", func(c *consumer.Config) { c.MaxConsecutiveDeadLetters = 100 })
	for n := range 1000 {
		id := "c" + strconv.Itoa(n)
		event := audittest.Enriched(e.API, id)
		event.Value, event.Reasons = audittest.EndCall(id, time.Now()), []schemas.Reason{schemas.NotFound}
		e.Feed(int32(n%partitions), event)
	}
	e.pause(time.Hour, 15*time.Second)
	if n := len(e.Outputs()); n == 0 || n > 100 {
		t.Fatalf("%d dead letters, want 1 to 100", n)
	}
	if len(i.Ready()) == 0 {
		t.Error("ready, though no record was found")
	}
	e.API.ClearOutage()
	e.Await(5 * time.Minute)
	if a := e.Check(); a.Enriched < 900 {
		t.Error(a)
	}
}

// badCalls are calls that alone have bad responses, and the dead letters they must
// become. faults repeat; attempts 0: any number.
var badCalls = map[string]struct {
	fault    fetchtest.Fault
	age      time.Duration
	reason   schemas.Reason
	code     int
	attempts int
	message  string
}{
	"502": {
		fault: fetchtest.BadGateway(), reason: schemas.LookupFailed, code: 502, message: "HTTP 502",
	},
	"cut body": {
		fault: fetchtest.CutBody(), reason: schemas.LookupFailed, message: "cut short",
	},
	"record of another call": {
		fault: fetchtest.WrongCallID(), reason: schemas.LookupFailed, message: "another CallId",
	},
	"account rejected": {
		fault: fetchtest.Named("not_administrator"), reason: schemas.LookupFailed, code: 60010, message: "administrator",
	},
	"bad account or signature": {
		fault: fetchtest.Named("bad_account_or_signature"), reason: schemas.LookupFailed, code: 60004, message: "signature",
	},
	"unknown code": {
		fault: fetchtest.Code(424242), reason: schemas.UnknownCode, code: 424242, message: "not in the error table",
	},
	"rejected": {
		fault: fetchtest.Named("bad_call_id"), reason: schemas.Rejected, code: 101002, attempts: 1, message: "parameters",
	},
	"never ends": {
		fault: fetchtest.NotEnded(), reason: schemas.NotEnded, attempts: 6, message: "end time",
	},
	"never found": {
		fault: fetchtest.Named("record_not_found"), reason: schemas.NotFound, code: 101050, attempts: 6, message: "no record",
	},
	"old and never found": {
		fault: fetchtest.Named("record_not_found"), age: time.Hour,
		reason: schemas.NotFound, code: 101050, attempts: 2, message: "no record",
	},
	"older than the API's retention": {
		fault: fetchtest.Named("record_not_found"), age: 8 * 24 * time.Hour,
		reason: schemas.Expired, code: 101050, attempts: 2, message: "no record",
	},
}

// TestBadCallIsIsolated feeds one bad call among healthy ones. It becomes a dead
// letter with the right reason and delays no other call.
func TestBadCallIsIsolated(t *testing.T) {
	for name, c := range badCalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				e.Start("a")
				e.API.Script(name, slices.Repeat([]fetchtest.Fault{c.fault}, 200)...)
				at := time.Now().Add(-c.age)
				e.Feed(0, audit.Expect{Value: audittest.EndCall(name, at), Timestamp: at, Reasons: []schemas.Reason{c.reason}})
				begin := time.Now()
				for n := range 8 * 60 { // healthy calls
					e.FeedCall(int32(n%partitions), "well-"+strconv.Itoa(n))
					<-time.After(time.Second)
				}
				e.Await(5 * time.Minute)
				e.Check()
				for _, l := range e.deadLetters() {
					if l.Code != c.code || c.attempts > 0 && l.Attempts != c.attempts || !strings.Contains(l.Message, c.message) {
						t.Errorf("code %d after %d attempts: %s", l.Code, l.Attempts, l.Message)
					}
					if l.Attempts > 0 && (l.First.Before(begin) || l.Last.Before(l.First)) {
						t.Errorf("first attempt %v, last %v", l.First, l.Last)
					}
				}
			})
		})
	}
}

// TestEventTimeInSeconds feeds events whose time is in seconds. It is the same time
// in milliseconds: it expires no event and takes nothing from its window.
func TestEventTimeInSeconds(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		e.Start("a")
		for n := range 300 {
			id := "c" + strconv.Itoa(n)
			e.API.Script(id, fetchtest.Named("record_not_found")) // the second request finds it
			e.FeedValue(int32(n%partitions), fmt.Sprintf(`{"CallId":%q,"EventTime":%d}`, id, time.Now().Unix()), id)
		}
		e.Await(time.Minute)
		if a := e.Check(); a.Enriched != 300 {
			t.Error(a)
		}
	})
}

// TestManyNeverFound feeds one partition 15,000 events, a tenth of calls that are
// never found. Back-pressure bounds the offset metadata.
func TestManyNeverFound(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		for n := range 15_000 {
			id := "c" + strconv.Itoa(n)
			if n%10 == 0 {
				e.API.Never(id)
				e.FeedDead(0, audittest.EndCall(id, time.Now()), schemas.NotFound)
			} else {
				e.FeedCall(0, id)
			}
		}
		i := e.Start("a", func(c *consumer.Config) { c.APIRate, c.MaxInFlight, c.MaxConsecutiveDeadLetters = 0, 1000, 0 })
		c := watchCommits(i)
		e.Await(time.Hour)
		e.Check()
		if c.widest == 0 || c.widest > progress.MaxOffsetMetadataBytes {
			t.Errorf("metadata of up to %d bytes", c.widest)
		}
	})
}
