package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"enricher/cmd/enricher/internal/hint"
	"enricher/consumer/progress"
	"enricher/producer"
)

// probe tries what brokers may refuse and document nowhere, with a transactional id
// and a group of its own, so that a running service notices nothing. Its records are
// in transactions that it aborts.
type probe struct {
	*run
	id, group string
	versions  *kversion.Versions // that the cluster's transaction.version allows
	cl        *kgo.Client
	producer  int64 // of the transactional id
	epoch     int16
	written   map[string]int // bytes by topic
}

// probeKey is the key of the records: a compacted topic refuses those without one.
const probeKey = "enricher-probe"

// probe runs the checks that write to Kafka.
func (r *run) probe(ctx context.Context) {
	inputs := r.inputs()
	if len(inputs) == 0 || len(r.topics) < len(r.cfg.Read)+len(r.cfg.Write) {
		r.skip(checkProbe, "all", "not every topic exists and is visible")
		return
	}
	p := &probe{run: r, id: r.cfg.TransactionalID + ".probe", group: r.cfg.Group + ".probe", versions: kversion.Stable(), written: make(map[string]int)}
	if r.transactionVersion < 2 { // as clients must
		p.versions.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
		p.versions.SetMaxKeyVersion(int16(kmsg.EndTxn), 4)
	}
	var err error
	if p.cl, err = p.client(kgo.MaxVersions(p.versions)); err != nil {
		r.skip(checkProbe, "all", "%v", err)
		return
	}
	defer p.cl.Close()
	if p.judge(checkProbeID, p.id, "initialised", r.step(ctx, p.initialise), "use brokers that support transactions") {
		p.offsets(ctx, inputs[0])
		p.records(ctx)
		p.codecs(ctx)
	}
	p.cleanUp(ctx)
}

func (p *probe) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(slices.Concat(p.cfg.Kafka, []kgo.Opt{
		kgo.DialTimeout(dialTimeout), kgo.RequestRetries(2), kgo.RetryTimeout(stepTimeout),
	}, opts)...)
}

// judge adds what came of a try, and reports whether it succeeded. A permission that
// only the probe lacks is a warning.
func (p *probe) judge(check, subject, found string, err error, remedy string) bool {
	switch {
	case err == nil:
		p.ok(check, subject, "%s", found)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		p.add(check, subject, Warning, "not authorized, so it was not tried", hint.ACL(p.cfg.Principal, "transactional-id", p.id, "Describe", "Write"))
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		p.add(check, subject, Warning, fmt.Sprintf("not authorized to use group %q, so it was not tried", p.group),
			hint.ACL(p.cfg.Principal, "group", p.group, "Read", "Delete"))
	default:
		p.add(check, subject, Fatal, "refused: "+err.Error(), remedy)
	}
	return err == nil
}

// offsets tries the transactions of the service that hold no record: with the largest
// metadata, aborted, and without any, committed.
func (p *probe) offsets(ctx context.Context, t *topic) {
	metadata := strings.Repeat("x", progress.MaxOffsetMetadataBytes)
	subject := fmt.Sprintf("%d bytes", len(metadata))
	err := p.step(ctx, func(ctx context.Context) error { return p.commitOffset(ctx, t, metadata, false) })
	if errors.Is(err, kerr.OffsetMetadataTooLarge) {
		p.add(checkProbeMetadata, subject, Warning, "refused: "+err.Error()+"; the service commits less, and partitions wait more often",
			fmt.Sprintf("in the brokers' configuration: offset.metadata.max.bytes=%d", progress.MaxOffsetMetadataBytes))
	} else {
		p.judge(checkProbeMetadata, subject, "accepted, and aborted", err, "use brokers that support offset commits in transactions")
	}
	err = p.step(ctx, func(ctx context.Context) error { return p.commitOffset(ctx, t, "", true) })
	p.judge(checkProbeTransaction, "without records", "committed", err, "use brokers that support transactions without records")
}

// initialise initialises the transactional id.
func (p *probe) initialise(ctx context.Context) error {
	return retryTransaction(ctx, func() error {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &p.id, int32(producer.TransactionTimeout.Milliseconds())
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		p.producer, p.epoch = resp.ProducerID, resp.ProducerEpoch
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// commitOffset commits an offset of the probe's group in a transaction, which it then
// commits or aborts.
func (p *probe) commitOffset(ctx context.Context, t *topic, metadata string, commit bool) error {
	err := p.addOffset(ctx, t, metadata)
	return errors.Join(err, p.end(ctx, commit && err == nil))
}

func (p *probe) addOffset(ctx context.Context, t *topic, metadata string) error {
	if p.transactionVersion < 2 { // later brokers do it themselves
		if err := retryTransaction(ctx, func() error {
			req := kmsg.NewPtrAddOffsetsToTxnRequest()
			req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.id, p.group, p.producer, p.epoch
			resp, err := req.RequestWith(ctx, p.cl)
			if err != nil {
				return err
			}
			return kerr.ErrorForCode(resp.ErrorCode)
		}); err != nil {
			return err
		}
	}
	return retryTransaction(ctx, func() error {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.id, p.group, p.producer, p.epoch
		rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		rp.Metadata = &metadata
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID, rt.Partitions = t.name, t.id, append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(rp.ErrorCode))
			}
		}
		return err
	})
}

func (p *probe) end(ctx context.Context, commit bool) error {
	return retryTransaction(ctx, func() error {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.id, p.producer, p.epoch, commit
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		const bumpsEpoch = 5 // and returns the next one
		if err = kerr.ErrorForCode(resp.ErrorCode); err == nil && resp.Version >= bumpsEpoch {
			p.producer, p.epoch = resp.ProducerID, resp.ProducerEpoch
		}
		return err
	})
}

// retryTransaction repeats a request while the previous transaction is being ended or
// a coordinator is moving.
func retryTransaction(ctx context.Context, request func() error) error {
	const pause = 100 * time.Millisecond
	for {
		err := request()
		if !slices.ContainsFunc([]error{kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress},
			func(e error) bool { return errors.Is(err, e) }) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// records tries a record of maximum size in every output topic.
func (p *probe) records(ctx context.Context) {
	noise := make([]byte, p.cfg.MaxRecordBytes) // which no codec makes smaller
	chacha := rand.NewChaCha8([32]byte{})
	_, _ = chacha.Read(noise) // never fails
	limit := producer.RecordBuilder{MaxRecordBytes: p.cfg.MaxRecordBytes}
	for !limit.Fits(probeRecord("", noise)) {
		noise = noise[1:]
	}
	for _, topic := range p.cfg.Write {
		subject := fmt.Sprintf("%d bytes to topic %s", p.cfg.MaxRecordBytes, topic)
		err := p.produce(ctx, topic, noise, p.cfg.Codecs[p.cfg.Compression])
		var refused *kerr.Error
		switch {
		case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
			p.add(checkProbeRecord, subject, Warning, "refused: "+err.Error()+"; the service sends smaller batches until they are accepted", hint.For(hint.Explain(err, "")))
		case err != nil && !errors.As(err, &refused):
			p.add(checkProbeRecord, subject, Fatal, "no response: "+err.Error(), "lower --batch-max-bytes: the brokers may close connections with larger requests")
		default:
			p.judge(checkProbeRecord, subject, "accepted, and aborted", err, "check the settings and permissions of the topic")
		}
	}
}

// codecs tries every compression.
func (p *probe) codecs(ctx context.Context) {
	text := []byte(strings.Repeat("enricher probe ", 500))
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Codecs)) {
		err := p.produce(ctx, p.cfg.Write[0], text, p.cfg.Codecs[name])
		if err != nil && name != p.cfg.Compression {
			p.ok(checkProbeCompression, name, "refused, and not used: %v", err)
			continue
		}
		p.judge(checkProbeCompression, name, "accepted, and aborted", err, "use another --compression: all brokers accept none, and nearly all gzip")
	}
}

func probeRecord(topic string, value []byte) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: []byte(probeKey), Value: value}
}

// produce produces a record in a transaction and aborts it.
func (p *probe) produce(ctx context.Context, topic string, value []byte, codec kgo.CompressionCodec) error {
	cl, err := p.client(kgo.TransactionalID(p.id), kgo.TransactionTimeout(producer.TransactionTimeout), kgo.RecordDeliveryTimeout(stepTimeout/3),
		kgo.ProducerBatchMaxBytes(int32(p.cfg.MaxRecordBytes)), kgo.ProducerBatchCompression(codec))
	if err != nil {
		return err
	}
	defer cl.Close()
	return p.step(ctx, func(ctx context.Context) error {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		err := cl.ProduceSync(ctx, probeRecord(topic, value)).FirstErr()
		if err == nil {
			p.written[topic] += len(value)
		}
		return errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
	})
}

// cleanUp deletes the group, and says what is left.
func (p *probe) cleanUp(ctx context.Context) {
	var deleted kadm.DeleteGroupResponse
	err := p.step(ctx, func(ctx context.Context) (err error) {
		deleted, err = kadm.NewClient(p.cl).DeleteGroup(ctx, p.group)
		return err
	})
	if err = errors.Join(err, deleted.Err); err == nil || errors.Is(err, kerr.GroupIDNotFound) {
		p.ok(checkProbe, "group "+p.group, "deleted")
	} else {
		p.add(checkProbe, "group "+p.group, Warning, "not deleted: "+err.Error(), "kafka-consumer-groups --delete --group "+p.group)
	}
	left := []string{fmt.Sprintf("transactional id %q, which expires", p.id)}
	for _, topic := range slices.Sorted(maps.Keys(p.written)) {
		left = append(left, fmt.Sprintf("%d bytes of aborted records with key %q in topic %s, which read_committed consumers skip", p.written[topic], probeKey, topic))
	}
	p.ok(checkProbe, "left behind", "%s", strings.Join(left, "; "))
}
