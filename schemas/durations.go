package schemas

// Anomaly is what is inconsistent in a call record. Readers must accept others.
type Anomaly string

// The anomalies. Each one except LongerThanADay makes a duration absent.
const (
	NoStartTime       Anomaly = "no_start_time"
	NoEndTime         Anomaly = "no_end_time"
	NoAcceptTime      Anomaly = "no_accept_time" // ended normally, but was never answered
	EndBeforeStart    Anomaly = "end_before_start"
	AcceptBeforeStart Anomaly = "accept_before_start"
	AcceptAfterEnd    Anomaly = "accept_after_end"
	ImplausibleTime   Anomaly = "implausible_time" // it is no time in Unix seconds, and counts as not known

	LongerThanADay Anomaly = "longer_than_a_day"
)

// Anomalies returns all anomalies, in the order in which a record lists them.
func Anomalies() []Anomaly {
	return []Anomaly{NoStartTime, NoEndTime, NoAcceptTime, EndBeforeStart, AcceptBeforeStart, AcceptAfterEnd, ImplausibleTime, LongerThanADay}
}

const day = 24 * 60 * 60 // seconds

// Durations are the durations of a call in seconds. One that cannot be computed is
// nil, and an anomaly says why. None is negative, and if all are present then
// Ring + Talk = Total.
type Durations struct {
	Answered  bool
	Ring      *int64 // until the call was answered, or ended without that
	Talk      *int64 // 0 if the call was never answered
	Total     *int64
	Anomalies []Anomaly
}

// Times of calls are Unix seconds between these. The API is younger than 2015, and
// a time after 2100 is in another unit. The bounds are constants, because the value
// of a call must not depend on when it is computed.
const (
	EarliestTime = 1_420_070_400 // 2015
	LatestTime   = 4_102_444_800 // 2100
)

// plausible reports whether a time is one in Unix seconds: not a counter, a default
// or a time in milliseconds.
func plausible(t int64) bool { return t >= EarliestTime && t < LatestTime }

// ComputeDurations returns the durations of a call from its times in Unix seconds,
// of which 0 means not given. It uses no time that is not plausible, and of two
// times that contradict each other neither.
func ComputeDurations(start, accept, end int64, result string) Durations {
	d := Durations{Answered: accept > 0}
	odd := func(is bool, a Anomaly) bool {
		if is {
			d.Anomalies = append(d.Anomalies, a)
		}
		return is
	}
	hasStart, hasAccept, hasEnd := plausible(start), plausible(accept), plausible(end)
	badAccept := accept != 0 && !hasAccept
	odd(start == 0, NoStartTime)
	odd(end == 0, NoEndTime)
	noAccept := odd(!d.Answered && result == "NormalEnd", NoAcceptTime)
	backwards := odd(hasStart && hasEnd && end < start, EndBeforeStart)
	early := odd(hasAccept && hasStart && accept < start, AcceptBeforeStart)
	late := odd(hasAccept && hasEnd && accept > end, AcceptAfterEnd)
	odd(badAccept || start != 0 && !hasStart || end != 0 && !hasEnd, ImplausibleTime)

	var seconds struct{ ring, talk, total int64 }
	if hasStart && hasEnd && !backwards {
		seconds.total = end - start
		d.Total = &seconds.total
		odd(seconds.total > day, LongerThanADay)
	}
	switch {
	case noAccept, badAccept, backwards, early, late:
	case !d.Answered:
		if d.Total != nil {
			d.Ring, d.Talk = d.Total, &seconds.talk
		}
	default:
		if hasStart {
			seconds.ring = accept - start
			d.Ring = &seconds.ring
		}
		if hasEnd {
			seconds.talk = end - accept
			d.Talk = &seconds.talk
		}
	}
	return d
}
