package logsink_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"enricher/cmd/enricher/internal/logsink"
)

// pipe is an output whose reader can stop, or be gone.
type pipe struct {
	mu    sync.Mutex
	text  bytes.Buffer
	err   error         // of every write
	room  int           // bytes that are still taken before err
	pause chan struct{} // not nil: writes wait until it is closed
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	pause := p.pause
	p.mu.Unlock()
	if pause != nil {
		<-pause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		n := min(p.room, len(b))
		p.room -= n
		p.text.Write(b[:n])
		return n, p.err
	}
	return p.text.Write(b)
}

func (p *pipe) set(change func(*pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *pipe) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Split(strings.TrimSuffix(p.text.String(), "\n"), "\n")
}

func report(n uint64) []byte { return fmt.Appendf(nil, "%d dropped\n", n) }

// Lines that are not dropped come out in order and whole, and every other one is
// counted: in the metric, and in a line of its own once the output works again.
func TestEveryLineIsWrittenOrCounted(t *testing.T) {
	for name, c := range map[string]struct {
		breaks, recovers func(*pipe)
		blocks           bool
	}{
		"the reader sleeps": {
			func(p *pipe) { p.pause = make(chan struct{}) },
			func(p *pipe) { close(p.pause); p.pause = nil }, true,
		},
		"the pipe is closed": {
			func(p *pipe) { p.err = errors.New("broken pipe") },
			func(p *pipe) { p.err = nil }, false,
		},
		"the disk is full, within a line": {
			func(p *pipe) { p.err, p.room = errors.New("no space left on device"), 1003 },
			func(p *pipe) { p.err = nil }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 20_000
				p := &pipe{}
				s := logsink.New(p, report)
				i := 0
				write := func(until int) {
					start := time.Now()
					for ; i < until; i++ {
						if k, err := fmt.Fprintf(s, "line %06d, %s\n", i, strings.Repeat("x", 30)); err != nil || k != 43+1 {
							t.Fatal(k, err)
						}
						if i%100 == 0 {
							synctest.Wait()
						}
					}
					if took := time.Since(start); took > 0 {
						t.Fatalf("writing took %v", took)
					}
				}
				write(1000)
				p.set(c.breaks)
				write(n)
				start := time.Now()
				_ = s.Sync()
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("Sync took %v", took)
				}
				if s.Dropped() == 0 {
					t.Error("nothing was dropped")
				}
				p.set(c.recovers)
				synctest.Wait()
				write(n + 1000)
				_ = s.Sync()
				synctest.Wait()

				whole, reported, last := 0, uint64(0), -1
				for _, line := range p.lines() {
					var k int
					var dropped uint64
					switch {
					case strings.HasSuffix(line, "xx") && len(line) == 43:
						if _, err := fmt.Sscanf(line, "line %d,", &k); err != nil || k <= last {
							t.Fatalf("%q after line %d", line, last)
						}
						last = k
						whole++
					case strings.HasSuffix(line, " dropped"):
						if _, err := fmt.Sscanf(line, "%d dropped", &dropped); err != nil {
							t.Fatal(err)
						}
						reported += dropped
					case c.blocks:
						t.Fatalf("%q", line)
					}
				}
				if last != n+999 || uint64(whole)+s.Dropped() != n+1000 || reported != s.Dropped() {
					t.Errorf("%d written up to line %d, %d dropped, %d reported; %d in all", whole, last, s.Dropped(), reported, n+1000)
				}
			})
		})
	}
}

// The line of a panic gets out although the process ends at once.
func TestPanicIsWritten(t *testing.T) {
	p := &pipe{}
	s := logsink.New(p, report)
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), s, zap.InfoLevel))
	defer func() {
		_ = recover()
		if text := strings.Join(p.lines(), "\n"); !strings.Contains(text, "before") || !strings.Contains(text, "a bug") {
			t.Errorf("the log has %q", text)
		}
	}()
	log.Info("before")
	log.Panic("a bug")
}
