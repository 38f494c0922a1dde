package preflight

import (
	"context"
	"slices"
)

// rights lists every right that the service needs, and which are missing.
func (l *look) rights(ctx context.Context) {
	right := func(name string, p *problem) {
		if p == nil {
			l.ok(checkRight, name, "granted")
		} else {
			l.add(checkRight, name, Fatal, p.found, p.remedy)
		}
	}
	for _, t := range l.metadata.Topics {
		name := "read topic " + *t.Topic
		if slices.Contains(l.cfg.Write, *t.Topic) {
			name = "write topic " + *t.Topic
		}
		switch missing, p, err := l.cfg.topic(&t); {
		case err != nil:
			l.skip(checkRight, name, "%v", err)
		case missing != nil:
			l.skip(checkRight, name, "the topic is not there")
		default:
			right(name, p)
		}
	}
	group, id := "use group "+l.cfg.Group, "use transactional-id "+l.cfg.TransactionalID
	var noGroup, noID *problem
	if err := l.step(ctx, func(ctx context.Context) (err error) {
		noGroup, noID, err = l.cfg.groupAndID(ctx, l.cl, l.brokers)
		return err
	}); err != nil {
		l.skip(checkRight, group, "%v", err)
		l.skip(checkRight, id, "%v", err)
		return
	}
	right(group, noGroup)
	right(id, noID)
}
