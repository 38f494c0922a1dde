package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
	"enricher/test/proxy"
)

// kinds are all kinds of faults. init fills them in, because some refer to them.
var kinds []kind

// brokerForGood is not dealt: it comes once.
var brokerForGood *kind

func init() {
	kinds = []kind{
		{name: "kill -9", cards: 3, strike: strikeKill, mend: mendStart},
		{name: "SIGTERM", cards: 3, strike: strikeTerm, mend: mendTerm},
		{name: "freeze", cards: 1, strike: strikeFreeze, mend: mendFreeze},
		{name: "cut connections", cards: 3, strike: strikeCut},
		{name: "packet hole", cards: 1, strike: strikeHole, mend: mendHole},
		{name: "lost answer", cards: 4, must: true, at: answers, strike: strikeDrop},
		{name: "lost request", cards: 2, must: true, at: requests, strike: strikeDrop},
		{name: "late message", cards: 2, must: true, strike: strikeLate},
		{name: "expelled", cards: 3, strike: strikeExpel},
		{name: "twin", cards: 1, strike: strikeTwin, mend: mendTwin},
		{name: "scaled up", cards: 2, strike: strikeUp},
		{name: "scaled down", cards: 2, strike: strikeTermIfMore, mend: mendDown},
		{name: "broker killed", cards: 1, strike: strikeBrokerKill, mend: mendBroker},
		{name: "broker shut down", cards: 1, strike: strikeBrokerStop, mend: mendBroker},
		{name: "API outage", cards: 1, strike: strikeAPI, mend: mendAPI},
		{name: "broker killed for good", must: true, strike: strikeForGood},
	}
	brokerForGood = &kinds[len(kinds)-1]
}

// upTo is a time that this fault has chosen.
func (f *fault) upTo(d time.Duration) time.Duration { return time.Duration(f.dice * float64(d)) }

func strikeKill(_ context.Context, _ *chaos, f *fault) error {
	f.on.kill()
	return nil
}

func mendStart(ctx context.Context, _ *chaos, f *fault) error {
	if err := sleep(ctx, f.upTo(3*time.Second)); err != nil {
		return err
	}
	return f.on.start()
}

func strikeTerm(_ context.Context, _ *chaos, f *fault) error { return f.on.terminate() }

func mendTerm(ctx context.Context, c *chaos, f *fault) error {
	if err := f.on.awaitDrain(); err != nil {
		return err
	}
	return mendStart(ctx, c, f)
}

// A frozen process is past its session time-out when it goes on.
func strikeFreeze(_ context.Context, _ *chaos, f *fault) error {
	return f.on.proc.cmd.Process.Signal(syscall.SIGSTOP)
}

func mendFreeze(ctx context.Context, _ *chaos, f *fault) error {
	err := sleep(ctx, frozen)
	return errors.Join(err, f.on.proc.cmd.Process.Signal(syscall.SIGCONT))
}

func strikeCut(_ context.Context, _ *chaos, f *fault) error {
	f.on.proxy.Cut()
	return nil
}

func strikeHole(_ context.Context, _ *chaos, f *fault) error {
	f.on.proxy.Hole()
	return nil
}

// Some holes are shorter than the session time-out, some are longer.
func mendHole(ctx context.Context, _ *chaos, f *fault) error {
	err := sleep(ctx, time.Second+f.upTo(14*time.Second))
	f.on.proxy.Mend()
	return err
}

func strikeDrop(_ context.Context, _ *chaos, f *fault) error {
	if f.held == nil {
		return errMissed
	}
	f.held.Drop()
	return nil
}

// Some come after the time in which a transaction holds rebalances back.
func strikeLate(ctx context.Context, _ *chaos, f *fault) error {
	if f.held == nil {
		return errMissed
	}
	return sleep(ctx, f.upTo(5*time.Second))
}

// strikeExpel has the group forget the instance's member.
func strikeExpel(ctx context.Context, c *chaos, f *fault) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	groups, err := c.admin.DescribeGroups(ctx, group)
	if err != nil {
		return errMissed // its coordinator is away
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range groups[group].Members {
		if strings.HasPrefix(m.ClientID, f.on.name+"@") {
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = m.MemberID
			req.Members = append(req.Members, member)
		}
	}
	if len(req.Members) == 0 {
		return errMissed
	}
	if _, err := req.RequestWith(ctx, c.client); err != nil {
		return errMissed
	}
	return nil
}

// strikeTwin starts a second process with the same instance.
func strikeTwin(_ context.Context, _ *chaos, f *fault) error {
	twin, err := f.on.spawn("127.0.0.1:0")
	if err != nil {
		return err
	}
	f.older = f.on.proc
	f.older.mayEnd.Store(true)
	f.on.proc = twin
	return nil
}

// Of twins the one that started first gives way.
func mendTwin(ctx context.Context, _ *chaos, f *fault) error {
	select {
	case <-f.older.done:
		if f.older.exitCode != 1 {
			return fmt.Errorf("the older twin ended with exit code %d, want 1", f.older.exitCode)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(twinLimit):
		_ = f.older.cmd.Process.Kill()
		return errors.New("the older twin does not give way")
	}
}

// strikeUp has another instance join while the transaction is held.
func strikeUp(ctx context.Context, c *chaos, _ *fault) error {
	newcomer := c.takeStopped()
	if newcomer == nil {
		return errMissed
	}
	defer c.free(newcomer)
	if err := newcomer.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	joins, err := newcomer.proxy.Hold(ctx, proxy.Point{Key: kmsg.JoinGroup})
	if err != nil {
		return errMissed // no broker: it will join later
	}
	joins.Release()
	return nil
}

func strikeTermIfMore(_ context.Context, c *chaos, f *fault) error {
	if c.atWork() < least {
		return errMissed
	}
	return f.on.terminate()
}

func mendDown(_ context.Context, _ *chaos, f *fault) error { return f.on.awaitDrain() }

func strikeBrokerKill(_ context.Context, c *chaos, f *fault) error {
	return c.strikeBroker(f, c.kafka.Kill)
}

func strikeBrokerStop(_ context.Context, c *chaos, f *fault) error {
	return c.strikeBroker(f, c.kafka.Shutdown)
}

// strikeBroker ends a broker; one at a time.
func (c *chaos) strikeBroker(f *fault, end func(int) error) error {
	if !c.brokers.TryLock() {
		return errMissed
	}
	err := end(c.broker(f))
	if err != nil {
		c.brokers.Unlock()
	}
	return err
}

// broker is the one that a fault has chosen of those that are left.
func (c *chaos) broker(f *fault) int {
	var left []int
	for i := range c.kafka.Brokers {
		if i != c.gone {
			left = append(left, i)
		}
	}
	return left[int(f.dice*float64(len(left)))]
}

func mendBroker(ctx context.Context, c *chaos, f *fault) error {
	defer c.brokers.Unlock()
	err := sleep(ctx, f.upTo(3*time.Second))
	if err == nil {
		err = c.kafka.Run(c.broker(f))
	}
	if err == nil {
		left := len(c.kafka.Brokers)
		if c.gone >= 0 {
			left--
		}
		err = c.kafka.Await(ctx, left)
	}
	return err
}

// loseBroker kills a broker for good, at a moment of a transaction.
func (c *chaos) loseBroker(ctx context.Context) error {
	c.brokers.Lock()
	defer c.brokers.Unlock()
	for c.gone < 0 {
		f := &fault{kind: brokerForGood, aim: &moments[c.rng.IntN(len(moments))], dice: c.rng.Float64()}
		if f.on = c.take(c.rng.IntN(len(c.instances))); f.on != nil {
			err := c.inject(ctx, f)
			c.free(f.on)
			if err != nil {
				return err
			}
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func strikeForGood(_ context.Context, c *chaos, f *fault) error {
	if f.held == nil {
		return errMissed
	}
	lost := c.broker(f)
	if err := c.kafka.Kill(lost); err != nil {
		return err
	}
	c.gone = lost
	fmt.Printf("broker %d killed for good\n", lost+1)
	return nil
}

func strikeAPI(_ context.Context, c *chaos, f *fault) error {
	outages := []fetchtest.Fault{fetchtest.BadGateway(), fetchtest.Named("rate_limited"), fetchtest.HTML(), fetchtest.Hang()}
	c.api.SetOutage(outages[int(f.dice*float64(len(outages)))])
	return nil
}

func mendAPI(ctx context.Context, c *chaos, f *fault) error {
	err := sleep(ctx, time.Second+f.upTo(3*time.Second))
	c.api.ClearOutage()
	return err
}
