package preflight

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/producer"
)

// limit is what a broker's setting must be.
type limit struct {
	setting string
	unit    time.Duration // 0: a plain number
	least   int64
	most    int64 // 0: any
	status  Status
	why     string // what happens otherwise
}

var limits = []limit{
	{
		setting: "offset.metadata.max.bytes", least: progress.MaxOffsetMetadataBytes, status: Fatal,
		why: "commits are refused as soon as many events finish out of order",
	},
	{
		setting: "transaction.max.timeout.ms", unit: time.Millisecond, least: producer.TransactionTimeout.Milliseconds(), status: Fatal,
		why: "the service's transactions are refused",
	},
	{
		setting: "group.min.session.timeout.ms", unit: time.Millisecond, most: session.DefaultSessionTimeout.Milliseconds(), status: Fatal,
		why: "the service may not join its group",
	},
	{
		setting: "group.max.session.timeout.ms", unit: time.Millisecond, least: session.DefaultSessionTimeout.Milliseconds(), status: Fatal,
		why: "the service may not join its group",
	},
	{
		setting: "transactional.id.expiration.ms", unit: time.Millisecond, least: time.Hour.Milliseconds(), status: Warning,
		why: "an idle service is forgotten, and starts a new session whenever an event comes after a quiet time",
	},
	{
		setting: "offsets.retention.minutes", unit: time.Minute, least: int64(weekend / time.Minute), status: Warning,
		why: "a service that was stopped over a weekend starts where --start says, not where it was",
	},
}

// brokerConfigs compares the settings of all brokers with what the service
// needs; any of them may come to coordinate the group or the transactions.
func (l *look) brokerConfigs(ctx context.Context) {
	if len(l.brokers) == 0 {
		l.skip(checkBrokerConfig, "all", "%v", errNoBroker)
		return
	}
	var got kadm.ResourceConfigs
	err := l.step(ctx, func(ctx context.Context) (err error) {
		got, err = kadm.NewClient(l.cl).DescribeBrokerConfigs(ctx, l.brokers...)
		return err
	})
	var brokers []settings
	for _, id := range l.brokers {
		s := newSettings(strconv.Itoa(int(id)), got, err)
		if s.denied != "" {
			l.skip(checkBrokerConfig, fmt.Sprintf("all of broker %d", id), "%s", s.denied)
			continue
		}
		brokers = append(brokers, s)
	}
	if len(brokers) == 0 {
		return
	}
	for _, want := range limits {
		want.judge(&l.Report, brokers)
	}
}

// judge looks at the worst value of all brokers. It is pure.
func (w *limit) judge(r *Report, brokers []settings) {
	var worst int64
	known := false
	for _, b := range brokers {
		n, ok := b.number(w.setting)
		switch {
		case !ok:
		case !known, w.most > 0 && n > worst, w.most == 0 && n < worst:
			worst, known = n, true
		}
	}
	switch {
	case !known:
		r.untold(checkBrokerConfig, w.setting)
	case worst < w.least:
		r.add(checkBrokerConfig, w.setting, w.status, fmt.Sprintf("%s, less than %s: %s", w.text(worst), w.text(w.least), w.why),
			fmt.Sprintf("in the brokers' configuration: %s=%d", w.setting, w.least))
	case w.most > 0 && worst > w.most:
		r.add(checkBrokerConfig, w.setting, w.status, fmt.Sprintf("%s, more than %s: %s", w.text(worst), w.text(w.most), w.why),
			fmt.Sprintf("in the brokers' configuration: %s=%d", w.setting, w.most))
	default:
		r.ok(checkBrokerConfig, w.setting, "%s", w.text(worst))
	}
}

func (w *limit) text(n int64) string {
	if w.unit == 0 || n > math.MaxInt64/int64(w.unit) {
		return strconv.FormatInt(n, 10)
	}
	return span(time.Duration(n) * w.unit)
}
