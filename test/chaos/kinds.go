package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// kinds are all kinds of faults. init assigns them, because some refer to them.
var kinds []kind

// brokerForGood is not in the queue: it comes once.
var brokerForGood *kind

func init() {
	kinds = []kind{
		{name: "kill -9", weight: 3, inject: kill, recover: startLater},
		{name: "SIGTERM", weight: 3, inject: terminate, recover: drainAndStart},
		{name: "freeze", weight: 1, inject: freeze, recover: unfreeze, bound: harness.MaxLatencyFreeze, hidesOutputs: true},
		{name: "cut connections", weight: 3, inject: disconnect},
		{name: "blackhole", weight: 1, inject: blackhole, recover: endBlackhole},
		{name: "lost response", weight: 4, needsMessage: true, points: responses, inject: dropMessage},
		{name: "lost request", weight: 2, needsMessage: true, points: requests, inject: dropMessage},
		{name: "delayed message", weight: 2, needsMessage: true, inject: delayMessage},
		{name: "removed from the group", weight: 3, inject: removeFromGroup},
		{name: "duplicate instance", weight: 1, inject: startDuplicate, recover: awaitOlder},
		{name: "scaled up", weight: 2, inject: scaleUp},
		{name: "scaled down", weight: 2, inject: scaleDown, recover: drain},
		{name: "broker killed", weight: 1, inject: killBroker, recover: restartBroker},
		{name: "broker shut down", weight: 1, inject: shutDownBroker, recover: restartBroker},
		{name: "damaged batch", weight: 1, inject: damageBatch, recover: endPartial, bound: harness.MaxLatencyDamagedBatch},
		{name: "leaderless partition", weight: 1, inject: takeLeader, recover: endPartial, bound: harness.MaxLatencyLeaderless},
		{name: "refused output", weight: 1, inject: refuseOutputs, recover: endPartial, bound: harness.MaxLatencyRefused},
		{name: "403 for some calls", weight: 1, inject: forbidCalls, recover: endPartial, bound: harness.MaxLatencyForbidden},
		{name: "throttling", weight: 1, inject: throttle, recover: endPartial, bound: harness.MaxLatencyThrottled},
		{name: "flapping API", weight: 1, inject: flap, recover: endPartial, bound: harness.MaxLatencyFlapping},
		{name: "API outage", weight: 1, inject: startOutage, recover: endOutage},
		{name: "broker killed for good", needsMessage: true, inject: killBrokerForGood},
	}
	brokerForGood = &kinds[len(kinds)-1]
}

// upTo returns a time that this fault has chosen, up to d.
func (f *fault) upTo(d time.Duration) time.Duration { return time.Duration(f.random * float64(d)) }

func kill(_ context.Context, _ *injector, f *fault) error {
	f.on.kill()
	return nil
}

func startLater(ctx context.Context, _ *injector, f *fault) error {
	if err := sleep(ctx, f.upTo(3*time.Second)); err != nil {
		return err
	}
	return f.on.start()
}

func terminate(_ context.Context, _ *injector, f *fault) error { return f.on.terminate() }

func drainAndStart(ctx context.Context, j *injector, f *fault) error {
	if err := f.on.awaitDrain(); err != nil {
		return err
	}
	return startLater(ctx, j, f)
}

func freeze(ctx context.Context, _ *injector, f *fault) (err error) {
	if f.spares, err = outsideOf(ctx, f.on); err != nil {
		return errNotInjected // the coordinator is down
	}
	return f.on.proc.cmd.Process.Signal(syscall.SIGSTOP)
}

// The session of a frozen process may have timed out when it continues.
func unfreeze(ctx context.Context, _ *injector, f *fault) error {
	err := sleep(ctx, minFreezeTime+f.upTo(maxFreezeTime-minFreezeTime))
	return errors.Join(err, f.on.proc.cmd.Process.Signal(syscall.SIGCONT))
}

func disconnect(_ context.Context, _ *injector, f *fault) error {
	f.on.proxy.Disconnect()
	return nil
}

func blackhole(_ context.Context, _ *injector, f *fault) error {
	f.on.proxy.SetBlackhole(true)
	return nil
}

// Some blackholes are shorter than the session timeout of 10 s, some are longer.
func endBlackhole(ctx context.Context, _ *injector, f *fault) error {
	err := sleep(ctx, time.Second+f.upTo(14*time.Second))
	f.on.proxy.SetBlackhole(false)
	return err
}

func dropMessage(_ context.Context, _ *injector, f *fault) error {
	if f.held == nil {
		return errNotInjected
	}
	f.held.Drop()
	return nil
}

// Some messages are delayed for longer than a session lets a transaction hold a
// rebalance back.
func delayMessage(ctx context.Context, _ *injector, f *fault) error {
	if f.held == nil {
		return errNotInjected
	}
	return sleep(ctx, f.upTo(5*time.Second))
}

func removeFromGroup(ctx context.Context, _ *injector, f *fault) error {
	if f.on.removeFromGroup(ctx) != nil {
		return errNotInjected // the coordinator is down, or the instance is no member
	}
	return nil
}

// startDuplicate starts a second process with the same instance name.
func startDuplicate(_ context.Context, _ *injector, f *fault) error {
	newer, err := f.on.spawn("127.0.0.1:0")
	if err != nil {
		return err
	}
	f.older = f.on.proc
	f.older.mayExit.Store(true)
	f.on.proc = newer
	return nil
}

// Of two processes with one name, the one that started first has to exit.
func awaitOlder(ctx context.Context, _ *injector, f *fault) error {
	select {
	case <-f.older.done:
		if f.older.exitCode != 1 {
			return fmt.Errorf("the older process exited with code %d, want 1", f.older.exitCode)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(duplicateTimeout):
		_ = f.older.cmd.Process.Kill()
		return errors.New("the older process does not exit")
	}
}

// scaleUp has another instance join while the message is held.
func scaleUp(ctx context.Context, j *injector, _ *fault) error {
	newcomer := j.reserveStopped()
	if newcomer == nil {
		return errNotInjected
	}
	defer j.release(newcomer)
	join := newcomer.proxy.Hold(kafkaproxy.Point{Key: kmsg.JoinGroup})
	defer join.Release()
	if err := newcomer.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := join.Wait(ctx); err != nil {
		return errNotInjected // the broker is down: it joins later
	}
	return nil
}

func scaleDown(_ context.Context, j *injector, f *fault) error {
	if j.healthy() < minHealthy {
		return errNotInjected
	}
	return f.on.terminate()
}

func drain(_ context.Context, _ *injector, f *fault) error { return f.on.awaitDrain() }

func killBroker(_ context.Context, j *injector, f *fault) error {
	return j.endBroker(f, j.kafka.Kill)
}

func shutDownBroker(_ context.Context, j *injector, f *fault) error {
	return j.endBroker(f, j.kafka.Shutdown)
}

// endBroker ends a broker, unless another one is down.
func (j *injector) endBroker(f *fault, end func(int) error) error {
	if !j.brokers.TryLock() {
		return errNotInjected
	}
	err := end(j.broker(f))
	if err != nil {
		j.brokers.Unlock()
	}
	return err
}

// broker returns the broker that a fault has chosen of those that are left.
func (j *injector) broker(f *fault) int {
	var left []int
	for i := range j.kafka.Brokers {
		if i != j.lostBroker {
			left = append(left, i)
		}
	}
	return left[int(f.random*float64(len(left)))]
}

func restartBroker(ctx context.Context, j *injector, f *fault) error {
	defer j.brokers.Unlock()
	err := sleep(ctx, f.upTo(3*time.Second))
	if err == nil {
		err = j.kafka.Run(j.broker(f))
	}
	if err == nil {
		left := len(j.kafka.Brokers)
		if j.lostBroker >= 0 {
			left--
		}
		err = j.kafka.Await(ctx, left)
	}
	return err
}

// loseBroker kills a broker for good, at a point of a transaction.
func (j *injector) loseBroker(ctx context.Context) error {
	j.brokers.Lock()
	defer j.brokers.Unlock()
	for j.lostBroker < 0 {
		f := &fault{kind: brokerForGood, point: &anyPoint[j.rng.IntN(len(anyPoint))], random: j.rng.Float64()}
		if f.on = j.reserve(j.rng.IntN(len(j.instances))); f.on != nil {
			err := j.inject(ctx, f)
			j.release(f.on)
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

func killBrokerForGood(_ context.Context, j *injector, f *fault) error {
	if f.held == nil || !f.hits { // it happens once in a run
		return errNotInjected
	}
	lost := j.broker(f)
	if err := j.kafka.Kill(lost); err != nil {
		return err
	}
	j.lostBroker = lost
	fmt.Printf("broker %d killed for good\n", lost+1)
	return nil
}

func startOutage(_ context.Context, j *injector, f *fault) error {
	outages := []fetchtest.Fault{fetchtest.BadGateway(), fetchtest.Named("rate_limited"), fetchtest.HTML(), fetchtest.Hang()}
	j.api.SetOutage(outages[int(f.random*float64(len(outages)))])
	return nil
}

func endOutage(ctx context.Context, j *injector, f *fault) error {
	err := sleep(ctx, time.Second+f.upTo(3*time.Second))
	j.api.ClearOutage()
	return err
}
