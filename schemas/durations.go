package schemas

// Anomaly is what is inconsistent in a call record. The set is closed.
type Anomaly string

// The anomalies. Each one except LongerThanADay makes a duration absent.
const (
	NoStartTime       Anomaly = "no_start_time"
	NoEndTime         Anomaly = "no_end_time"
	NoAcceptTime      Anomaly = "no_accept_time" // ended normally, but was never answered
	EndBeforeStart    Anomaly = "end_before_start"
	AcceptBeforeStart Anomaly = "accept_before_start"
	AcceptAfterEnd    Anomaly = "accept_after_end"

	LongerThanADay Anomaly = "longer_than_a_day"
)

// Anomalies returns all anomalies, in the order in which a record lists them.
func Anomalies() []Anomaly {
	return []Anomaly{NoStartTime, NoEndTime, NoAcceptTime, EndBeforeStart, AcceptBeforeStart, AcceptAfterEnd, LongerThanADay}
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

// ComputeDurations returns the durations of a call from its times in Unix seconds,
// of which those of 0 and below are not given. Of two times that contradict each
// other it uses neither.
func ComputeDurations(start, accept, end int64, result string) Durations {
	d := Durations{Answered: accept > 0}
	odd := func(is bool, a Anomaly) bool {
		if is {
			d.Anomalies = append(d.Anomalies, a)
		}
		return is
	}
	noStart := odd(start <= 0, NoStartTime)
	noEnd := odd(end <= 0, NoEndTime)
	noAccept := odd(!d.Answered && result == "NormalEnd", NoAcceptTime)
	backwards := odd(!noStart && !noEnd && end < start, EndBeforeStart)
	early := odd(d.Answered && !noStart && accept < start, AcceptBeforeStart)
	late := odd(d.Answered && !noEnd && accept > end, AcceptAfterEnd)

	if !noStart && !noEnd && !backwards {
		total := end - start
		d.Total = &total
		odd(total > day, LongerThanADay)
	}
	switch {
	case noAccept, backwards, early, late:
	case !d.Answered:
		if d.Total != nil {
			d.Ring, d.Talk = d.Total, new(int64)
		}
	default:
		if !noStart {
			ring := accept - start
			d.Ring = &ring
		}
		if !noEnd {
			talk := end - accept
			d.Talk = &talk
		}
	}
	return d
}
