package admin

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// What the Kafka client repeats is limited by message: a chatty one hides no other.
// At debug level everything is logged.
func TestKafkaLogIsLimitedByMessage(t *testing.T) {
	for level, want := range map[zapcore.Level]map[string]int{
		zap.InfoLevel:  {"unable to connect": 2 * kafkaLogLines, "another": 1},
		zap.WarnLevel:  {"unable to connect": 2 * kafkaLogLines, "another": 1},
		zap.ErrorLevel: {},
		zap.DebugLevel: {"unable to connect": 200, "another": 1, "info": 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			core, logs := observer.New(level)
			cl, err := kgo.NewClient(KafkaLog(zap.New(core)))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			log := cl.OptValue(kgo.WithLogger).(kgo.Logger)
			logs.TakeAll()
			for i := range 200 {
				log.Log(kgo.LogLevelWarn, "unable to connect", "broker", i)
				if i == 99 {
					log.Log(kgo.LogLevelWarn, "another")
					log.Log(kgo.LogLevelInfo, "info")
					<-time.After(kafkaLogInterval)
				}
			}
			got := map[string]int{}
			for _, l := range logs.All() {
				got[l.Message]++
			}
			if len(got) != len(want) {
				t.Errorf("%v: %v, want %v", level, got, want)
			}
			for msg, n := range want {
				if got[msg] != n {
					t.Errorf("%v: %d lines %q, want %d", level, got[msg], msg, n)
				}
			}
		})
	}
}
